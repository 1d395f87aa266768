"""Rotary positions as config.json says them, in the older words and in those of today."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from llm_jax.base.errors import CheckpointError
from llm_jax.config.model import RotaryConfig
from llm_jax.interop.fields import Fields
from llm_jax.interop.source import quoted


def read_rotary(fields: Fields, context: int) -> RotaryConfig:
    """Return the rotary positions of a model with this context length, in which all layers and all of a head
    turn.

    Raises:
        CheckpointError: they are scaled in a way, or by fields, that this program does not know.
    """
    rotary = _read(fields, context, *_parameters(fields))
    if rotary.fraction != 1:
        raise CheckpointError(
            f"config.json: partial_rotary_factor must be 1 in this family, got {rotary.fraction}"
        )
    return rotary


def read_partial_rotary(fields: Fields, context: int) -> RotaryConfig:
    """Likewise where a share of each head may turn, and nothing is scaled (Phi-3)."""
    rotary = _read(fields, context, *_parameters(fields))
    if rotary.scaling != "none":  # transformers takes "yarn" for another word for longrope
        raise CheckpointError(f"config.json: rope_type must be default in this family, got {rotary.scaling}")
    return rotary


def read_rotary_by_kind(fields: Fields, context: int) -> RotaryConfig:
    """Likewise where layers that see all and those in windows have frequencies of their own (Gemma 3)."""
    local_theta = fields.number("rope_local_base_freq")
    kinds = fields.within("rope_parameters", fields.take("rope_parameters", dict, {}))
    local = kinds.within("sliding_attention", kinds.take("sliding_attention", dict, {}))
    local.require("type", "default")
    local.require("rope_type", "default")
    local_theta = local.number("rope_theta", local_theta)
    older = fields.take("rope_scaling", dict, {})
    full = kinds.take("full_attention", dict, {}) | older
    rotary = _read(fields, context, "rope_scaling" if older else "rope_parameters.full_attention", full)
    return dataclasses.replace(rotary, local_theta=local_theta)


def _parameters(fields: Fields) -> tuple[str, dict[str, Any]]:
    """How positions are scaled, and the field that says it, of which the older goes first."""
    newer, older = (fields.take(name, dict, {}) for name in ("rope_parameters", "rope_scaling"))
    return ("rope_scaling", older) if older else ("rope_parameters", newer)


def _read(fields: Fields, context: int, field: str, parameters: Mapping[str, Any]) -> RotaryConfig:
    theta = fields.number("rope_theta", 0.0)
    fraction = fields.number("partial_rotary_factor", 1.0)
    found = fields.within(field, parameters)
    theta = found.number("rope_theta", theta)
    if not theta:
        raise CheckpointError(f"config.json: rope_theta must be a number above 0, and is null in {field} too")
    fraction = found.number("partial_rotary_factor", fraction)
    older_word = found.take("type", str, "default")
    kind = found.take("rope_type", str, older_word)
    if kind in ("longrope", "su"):
        raise CheckpointError(
            f"config.json: rope_type {kind} is not supported, as it turns long texts otherwise than short "
            "ones; take the model with the shorter context, as Phi-3-mini-4k for Phi-3-mini-128k"
        )
    if kind not in _KINDS:
        raise CheckpointError(
            f"config.json: rope_type must be one of {', '.join(_KINDS)}, got {quoted(kind)}"
        )
    return RotaryConfig(theta=theta, fraction=fraction, **_KINDS[kind](found, context))


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
