"""Families of open models as settings of our decoder, read off Hugging Face's config.json.

A family is a function from fields to settings here and a table of names in `huggingface`.
"""

import dataclasses
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from llm_jax.base.errors import CheckpointError, UserError
from llm_jax.config.model import ModelConfig, RotaryConfig
from llm_jax.interop.fields import Fields
from llm_jax.interop.huggingface.family_defaults import DEFAULTS
from llm_jax.interop.huggingface.rope_scaling import read_partial_rotary, read_rotary, read_rotary_by_kind
from llm_jax.interop.huggingface.spellings import require_one_meaning
from llm_jax.interop.source import quoted

ACTIVATIONS = {
    "silu": "silu",
    "gelu_pytorch_tanh": "gelu",
    "gelu_new": "gelu",
    "gelu_fast": "gelu",
    "gelu": "gelu_exact",
    "relu": "relu",
    "relu2": "relu_squared",
    "swish": "silu",
}
_MOST_LAYERS = 10_000
_MOST_EXPERTS = 100_000  # in all layers


def read_model_config(config: Mapping[str, Any], ignored: Collection[str] = ()) -> ModelConfig:
    """Return the decoder that a config.json describes.

    Args:
        config: its fields. One that is missing is what it is to transformers in that family.
        ignored: fields that are passed over though this program does not know them.

    Raises:
        CheckpointError: its family is unknown, a field is of another type, or one asks for something that the
            decoder has not got, or two contradict each other.
    """
    require_one_meaning(config)
    fields, settings = _read(config)
    fields.finish(ignored)
    try:
        return ModelConfig(**settings, dropout=0.0, initializer="gpt2", head_bias=False)
    except UserError as error:
        raise CheckpointError(f"config.json: {error}") from None


def config_fields(config: Mapping[str, Any]) -> Fields:
    """Return the fields of a config.json after `read_model_config` has taken those that it uses.

    Raises:
        CheckpointError: likewise.
    """
    return _read(config)[0]


def _read(config: Mapping[str, Any]) -> tuple[Fields, dict[str, Any]]:
    family = config.get("model_type")
    if not isinstance(family, str) or family not in FAMILIES:
        wider = ", a model of more than text; take the repository of a text model" * ("text_config" in config)
        raise CheckpointError(
            f"config.json: model_type must be one of {', '.join(FAMILIES)}, got {quoted(family)}{wider}"
        )
    fields = Fields(config, "config.json", DEFAULTS[family])
    fields.spare("model_type", "bos_token_id", "eos_token_id")
    return fields, FAMILIES[family](fields)


def _gpt2(fields: Fields) -> dict[str, Any]:
    fields.require("add_cross_attention", False)
    fields.require("scale_attn_weights", True)
    fields.require("scale_attn_by_inverse_layer_idx", False)
    fields.require("reorder_and_upcast_attn", False, True)  # True for the order of the same products alone
    return {
        "vocab_size": fields.whole("vocab_size"),
        "context_length": fields.whole("n_positions"),
        "d_model": fields.whole("n_embd"),
        "num_layers": _num_layers(fields, "n_layer"),
        "num_heads": fields.whole("n_head"),
        "d_ff": fields.whole("n_inner", 0),
        "norm_eps": fields.number("layer_norm_epsilon"),
        "activation": _activation(fields, "activation_function"),
        "tied_head": fields.take("tie_word_embeddings", bool),
        "positions": "learned",
        "qkv_bias": True,
    }


def _llama(fields: Fields) -> dict[str, Any]:
    return _alike(fields, _common(fields, {"attention_bias", "mlp_bias"}))


def _common(
    fields: Fields,
    biases: set[str],
    *,
    activation: str = "hidden_act",
    d_ff: str = "intermediate_size",
    rotary: Callable[[Fields, int], RotaryConfig] = read_rotary,
) -> dict[str, Any]:
    """What Llama has, and with it most families.

    Args:
        fields: of config.json.
        biases: the fields that say whether there are any, of those that the family has.
        activation: the field that names the non-linearity.
        d_ff: the field that gives the MLP's width.
        rotary: reads positions, given the context length.
    """
    context = fields.whole("max_position_embeddings")
    for field in sorted({"attention_bias", "mlp_bias"} - biases):
        fields.require(field, False, None)
    attention_bias = "attention_bias" in biases and fields.take("attention_bias", bool)
    return {
        "vocab_size": fields.whole("vocab_size"),
        "context_length": context,
        "d_model": fields.whole("hidden_size"),
        "num_layers": _num_layers(fields, "num_hidden_layers"),
        "num_heads": fields.whole("num_attention_heads"),
        "num_kv_heads": fields.whole("num_key_value_heads", 0),
        "d_head": fields.whole("head_dim", 0),
        "d_ff": fields.whole(d_ff),
        "norm_eps": fields.number("rms_norm_eps"),
        "activation": _activation(fields, activation),
        "tied_head": fields.take("tie_word_embeddings", bool),
        "qkv_bias": attention_bias,
        "output_bias": attention_bias,
        "mlp_bias": "mlp_bias" in biases and fields.take("mlp_bias", bool),
        "positions": "rotary",
        "rotary": rotary(fields, context),
        "norm": "rms",
        "gated_mlp": True,
    }


def _mistral(fields: Fields) -> dict[str, Any]:
    return _alike(fields, _common(fields, set()) | {"sliding_window": fields.whole("sliding_window", 0)})


def _alike(fields: Fields, settings: dict[str, Any]) -> dict[str, Any]:
    """The same settings, of a family whose layers are all of one kind, which layer_types may repeat."""
    kind = "sliding_attention" if settings.get("sliding_window") else "full_attention"
    fields.repeats("layer_types", [kind] * settings["num_layers"])
    return settings


def _qwen2(fields: Fields) -> dict[str, Any]:
    return _qwen(fields, set()) | {"qkv_bias": True}


def _qwen3(fields: Fields) -> dict[str, Any]:
    return _qwen(fields, {"attention_bias"}) | {"qk_norm": "head"}


def _qwen(fields: Fields, biases: set[str]) -> dict[str, Any]:
    """What Qwen 2, 2.5 and 3 share."""
    settings = _common(fields, biases)
    layers, whole = range(settings["num_layers"]), fields.take("max_window_layers", int, 0)
    usual = ["full_attention" if layer < whole else "sliding_attention" for layer in layers]
    kinds = _kinds(fields, usual)
    window = fields.whole("sliding_window", 0)
    return settings | _windows(window if fields.take("use_sliding_window", bool) else 0, kinds)


def _mixtral(fields: Fields) -> dict[str, Any]:
    return _experts(fields, _mistral(fields), "num_local_experts") | {"router_normalizes": True}


def _qwen3_moe(fields: Fields) -> dict[str, Any]:
    fields.require("use_sliding_window", False, None)
    fields.require("decoder_sparse_step", 1, None)
    fields.require("mlp_only_layers", [], None)
    fields.whole("intermediate_size")  # of layers without experts, which are refused
    fields.whole("sliding_window", 0)
    fields.whole("max_window_layers", 0)
    settings = _alike(fields, _common(fields, {"attention_bias"}, d_ff="moe_intermediate_size"))
    named = "num_local_experts" if "num_local_experts" in fields else "num_experts"
    settings = _experts(fields, settings, named)
    fields.repeats("num_experts", settings["num_experts"])
    fields.repeats("use_qk_norm", True)
    fields.repeats("shared_expert_intermediate_size", 0)
    return settings | {"router_normalizes": fields.take("norm_topk_prob", bool), "qk_norm": "head"}


def _experts(fields: Fields, settings: dict[str, Any], number: str) -> dict[str, Any]:
    """The settings, with as many experts as the field of this name says."""
    experts = fields.whole(number)
    if (total := experts * settings["num_layers"]) > _MOST_EXPERTS:
        raise CheckpointError(
            f"config.json: experts in all layers must be at most {_MOST_EXPERTS:,}, got {total:,}"
        )
    return settings | {"num_experts": experts, "experts_per_token": fields.whole("num_experts_per_tok")}


def _gemma2(fields: Fields) -> dict[str, Any]:
    settings = _gemma(fields)
    return settings | _layer_kinds(fields, settings["num_layers"], every=2)


def _gemma3(fields: Fields) -> dict[str, Any]:
    settings = _gemma(fields, read_rotary_by_kind)
    every = fields.whole("sliding_window_pattern")
    windows = _layer_kinds(fields, settings["num_layers"], every)
    fields.repeats("_sliding_window_pattern", windows.get("global_every"), every)
    rotary = settings["rotary"] if windows else dataclasses.replace(settings["rotary"], local_theta=0.0)
    return settings | windows | {"qk_norm": "head", "rotary": rotary}


def _gemma(fields: Fields, rotary: Callable[[Fields, int], RotaryConfig] = read_rotary) -> dict[str, Any]:
    """What Gemma 2 and 3 share."""
    fields.require("use_bidirectional_attention", False, None)
    settings = _common(fields, {"attention_bias"}, activation="hidden_activation", rotary=rotary)
    fields.unread("hidden_act", "sliding_window_size")
    return settings | {
        "norm": "rms_plus_one",
        "norm_place": "both",
        "embedding_scale": math.sqrt(settings["d_model"]),
        "attention_scale": fields.number("query_pre_attn_scalar") ** -0.5,
        "attention_cap": fields.number("attn_logit_softcapping", 0.0),
        "logit_cap": fields.number("final_logit_softcapping", 0.0),
    }


def _layer_kinds(fields: Fields, num_layers: int, every: int) -> dict[str, Any]:
    usual = ["sliding_attention" if (layer + 1) % every else "full_attention" for layer in range(num_layers)]
    return _windows(fields.whole("sliding_window"), _kinds(fields, usual))


def _kinds(fields: Fields, usual: list[str]) -> list[str]:
    """The kind of each layer, as the file says it or as usual."""
    kinds = fields.take("layer_types", list, usual)
    if len(kinds) != len(usual):
        raise CheckpointError(f"config.json: layer_types must be {len(usual)} kinds, got {len(kinds)}")
    return kinds


def _olmo2(fields: Fields) -> dict[str, Any]:
    settings = _alike(fields, _common(fields, {"attention_bias"}))
    return settings | {"norm_place": "after", "qk_norm": "all_heads"}


def _phi3(fields: Fields) -> dict[str, Any]:
    settings = _common(fields, set(), rotary=read_partial_rotary)
    fields.whole("original_max_position_embeddings", 0)  # for longrope alone, which is refused
    return _alike(fields, settings | {"sliding_window": fields.whole("sliding_window", 0)})


def _num_layers(fields: Fields, field: str) -> int:
    """Bounded, as what follows takes time and memory for each."""
    layers = fields.whole(field)
    if layers > _MOST_LAYERS:
        raise CheckpointError(f"config.json: {field} must be at most {_MOST_LAYERS:,}, got {layers:,}")
    return layers


def _activation(fields: Fields, field: str) -> str:
    name = fields.take(field, str)
    if name not in ACTIVATIONS:
        raise CheckpointError(f"config.json: {field} must be one of {', '.join(ACTIVATIONS)}, got {name!r}")
    return ACTIVATIONS[name]


def _windows(window: int, kinds: Sequence[str]) -> dict[str, Any]:
    """Settings for layers that are "full_attention" or "sliding_attention": a full one every so many."""
    if odd := [kind for kind in kinds if kind not in ("full_attention", "sliding_attention")]:
        raise CheckpointError(
            f"config.json: layer_types must be full_attention or sliding_attention, got {quoted(odd[0])}"
        )
    full = [kind == "full_attention" for kind in kinds]
    if not window or all(full):
        return {}
    for every in (0, *range(1, len(full) + 1)):
        if full == [every > 0 and (layer + 1) % every == 0 for layer in range(len(full))]:
            return {"sliding_window": window, "global_every": every}
    raise CheckpointError(
        "config.json: full_attention must come every so many layers, got another layer_types"
    )


FAMILIES: dict[Any, Callable[[Fields], dict[str, Any]]] = {
    "gpt2": _gpt2,
    "llama": _llama,
    "mistral": _mistral,
    "qwen2": _qwen2,
    "qwen3": _qwen3,
    "gemma2": _gemma2,
    "gemma3_text": _gemma3,
    "olmo2": _olmo2,
    "phi3": _phi3,
    "mixtral": _mixtral,
    "qwen3_moe": _qwen3_moe,
}
