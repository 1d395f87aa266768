"""Rotary positions as config.json says them, in the older words and in those of today."""

import math
from collections.abc import Mapping
from typing import Any

from llm_jax.errors import CheckpointError
from llm_jax.interop.fields import Fields
from llm_jax.model_config import RotaryConfig

_DEFAULT_THETA = 10000.0


def read_rotary(fields: Fields, context: int, *, partial: bool) -> RotaryConfig:
    """The rotary positions of a model with this context length; only some families turn a share of a head.

    Raises:
        CheckpointError: they are stretched in a way, or by fields, that this program does not know.
    """
    theta = fields.number("rope_theta", _DEFAULT_THETA)
    local_theta = fields.number("rope_local_base_freq", 0.0)
    fraction = fields.number("partial_rotary_factor", 1.0)
    older = fields.take("rope_scaling", dict, {})
    newer = fields.take("rope_parameters", dict, {})
    if "full_attention" in newer:  # one for each kind of layer
        kinds = Fields(newer, "config.json, rope_parameters")
        newer, sliding = kinds.take("full_attention", dict), kinds.take("sliding_attention", dict, {})
        kinds.finish()
        local = Fields(sliding, "config.json, rope_parameters, sliding_attention")
        local.require("rope_type", "default")
        local_theta = local.number("rope_theta", _DEFAULT_THETA)
        local.finish()
    found = Fields(older | newer, "config.json, rope_parameters")
    theta = found.number("rope_theta", theta)
    fraction = found.number("partial_rotary_factor", fraction)
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
    return {"scaling": "linear", "factor": fields.number("factor")}


def _llama3(fields: Fields, context: int) -> dict[str, Any]:
    return {
        "scaling": "llama3",
        "factor": fields.number("factor"),
        "original_context": fields.whole("original_max_position_embeddings"),
        "slow_turns": fields.number("low_freq_factor"),
        "fast_turns": fields.number("high_freq_factor"),
    }


def _yarn(fields: Fields, context: int) -> dict[str, Any]:
    original = fields.whole("original_max_position_embeddings", context)
    factor = fields.number("factor", context / original)
    scale, scale_all = (fields.number(name, 0.0) for name in ("mscale", "mscale_all_dim"))
    usual = _grown(factor, 1.0)
    if scale and scale_all:
        usual = _grown(factor, scale) / _grown(factor, scale_all)
    return {
        "scaling": "yarn",
        "factor": factor,
        "original_context": original,
        "slow_turns": fields.number("beta_slow", 1.0),
        "fast_turns": fields.number("beta_fast", 32.0),
        "magnitude": fields.number("attention_factor", usual),
        "round_pairs": fields.take("truncate", bool, True),
    }


def _grown(factor: float, weight: float) -> float:
    """How much larger YaRN makes queries and keys in a context that grew by this factor."""
    return 0.1 * weight * math.log(factor) + 1 if factor > 1 else 1.0


_KINDS: Mapping[str, Any] = {"default": _plain, "linear": _linear, "llama3": _llama3, "yarn": _yarn}
