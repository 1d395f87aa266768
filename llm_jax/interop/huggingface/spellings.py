"""What a config.json says twice, in the words of transformers 4 and in those of 5, it must say alike: each
program reads its own words, and is silent about the others.
"""

from collections.abc import Mapping
from typing import Any

from llm_jax.base.errors import CheckpointError
from llm_jax.interop.source import quoted

_APART = ("rope_theta", "partial_rotary_factor")  # stand beside rope_scaling, or in rope_parameters
_KINDS = ("rope_type", "type")


def require_one_meaning(config: Mapping[str, Any]) -> None:
    """Refuse a config.json that contradicts itself; values of other types are left to whoever reads them.

    Raises:
        CheckpointError: it does.
    """
    older, newer = (_object(config, name) for name in ("rope_scaling", "rope_parameters"))
    sliding: Mapping[str, Any] = {}
    if "full_attention" in newer or "sliding_attention" in newer:  # one for each kind of layer
        newer, sliding = (_object(newer, name) for name in ("full_attention", "sliding_attention"))
    for name in _APART:
        _require_same(name, config.get(name), older.get(name), newer.get(name))
    _require_same("rope_local_base_freq", config.get("rope_local_base_freq"), sliding.get("rope_theta"))
    for rope in (older, newer, sliding):
        _require_same("rope_type", *(rope.get(name) for name in _KINDS))
    if older and newer:
        _require_same("the scaling of rotary positions", _scaling(older), _scaling(newer))
    kinds, every = config.get("layer_types"), config.get("sliding_window_pattern")
    if isinstance(kinds, list) and type(every) is int and every > 0:
        windows = ["sliding_attention" if layer % every else "full_attention" for layer in _numbers(kinds)]
        _require_same("layer_types (or sliding_window_pattern)", windows, kinds)


def _numbers(layers: list[Any]) -> range:
    return range(1, len(layers) + 1)


def _object(values: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = values.get(name)
    return value if isinstance(value, Mapping) else {}


def _scaling(rope: Mapping[str, Any]) -> dict[str, Any]:
    kind = next((rope[name] for name in _KINDS if rope.get(name)), "default")
    said = {name: value for name, value in rope.items() if name not in (*_APART, *_KINDS)}
    return {"rope_type": kind} | {name: value for name, value in said.items() if value is not None}


def _require_same(what: str, *said: Any) -> None:
    given = [value for value in said if value is not None]
    if odd := [value for value in given if value != given[0]]:
        raise CheckpointError(
            f"config.json: {what} must be the same under its older and its newer name, got "
            f"{quoted(given[0])} and {quoted(odd[0])}"
        )
