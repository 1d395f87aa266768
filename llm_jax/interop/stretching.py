"""Rotary positions as config.json says them, in the older words and in those of today."""

import math
from collections.abc import Mapping
from typing import Any

from llm_jax.errors import CheckpointError
from llm_jax.interop.fields import Fields
from llm_jax.model_config import RotaryConfig

_NUMBER = (int, float)
_DEFAULT_THETA = 10000.0


def read_rotary(fields: Fields, context: int, *, partial: bool) -> RotaryConfig:
    """The rotary positions of a model with this context length; only some families turn a share of a head.

    Raises:
        CheckpointError: they are stretched in a way, or by fields, that this program does not know.
    """
    theta = float(fields.take("rope_theta", _NUMBER, _DEFAULT_THETA))
    local_theta = float(fields.take("rope_local_base_freq", _NUMBER, 0.0))
    fraction = float(fields.take("partial_rotary_factor", _NUMBER, 1.0))
    older = fields.take("rope_scaling", dict, {})
    newer = fields.take("rope_parameters", dict, {})
    if "full_attention" in newer:  # one for each kind of layer
        local = Fields(
            newer.get("sliding_attention") or {}, "config.json, rope_parameters, sliding_attention"
        )
        local.require("rope_type", "default")
        local_theta = float(local.take("rope_theta", _NUMBER, _DEFAULT_THETA))
        local.finish()
        newer = newer["full_attention"]
    found = Fields(older | newer, "config.json, rope_parameters")
    theta = float(found.take("rope_theta", _NUMBER, theta))
    fraction = float(found.take("partial_rotary_factor", _NUMBER, fraction))
    older_word = found.take("type", str, "default")
    kind = found.take("rope_type", str, older_word)
    if kind not in _KINDS:
        raise CheckpointError(f"config.json: rope_type must be one of {', '.join(_KINDS)}, got {kind!r}")
    settings = _KINDS[kind](found, context)
    found.finish()
    if fraction != 1 and not partial:
        raise CheckpointError(f"config.json: partial_rotary_factor must be 1 in this family, got {fraction}")
    return RotaryConfig(theta=theta, local_theta=local_theta, fraction=fraction, **settings)


def _plain(fields: Fields, context: int) -> dict[str, Any]:
    return {}


def _linear(fields: Fields, context: int) -> dict[str, Any]:
    return {"scaling": "linear", "factor": float(fields.take("factor", _NUMBER))}


def _llama3(fields: Fields, context: int) -> dict[str, Any]:
    return {
        "scaling": "llama3",
        "factor": float(fields.take("factor", _NUMBER)),
        "original_context": fields.take("original_max_position_embeddings", int),
        "slow_turns": float(fields.take("low_freq_factor", _NUMBER)),
        "fast_turns": float(fields.take("high_freq_factor", _NUMBER)),
    }


def _yarn(fields: Fields, context: int) -> dict[str, Any]:
    original = fields.take("original_max_position_embeddings", int, context)
    factor = float(fields.take("factor", _NUMBER, context / original))
    scale, scale_all = (float(fields.take(name, _NUMBER, 0.0)) for name in ("mscale", "mscale_all_dim"))
    usual = _grown(factor, 1.0)
    if scale and scale_all:
        usual = _grown(factor, scale) / _grown(factor, scale_all)
    return {
        "scaling": "yarn",
        "factor": factor,
        "original_context": original,
        "slow_turns": float(fields.take("beta_slow", _NUMBER, 1.0)),
        "fast_turns": float(fields.take("beta_fast", _NUMBER, 32.0)),
        "magnitude": float(fields.take("attention_factor", _NUMBER, usual)),
        "round_pairs": fields.take("truncate", bool, True),
    }


def _grown(factor: float, weight: float) -> float:
    """How much larger YaRN makes queries and keys in a context that grew by this factor."""
    return 0.1 * weight * math.log(factor) + 1 if factor > 1 else 1.0


_KINDS: Mapping[str, Any] = {"default": _plain, "linear": _linear, "llama3": _llama3, "yarn": _yarn}
