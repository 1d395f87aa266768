"""Our settings as Hugging Face's config.json: the first family that reads back as the same decoder."""

import dataclasses
import math
from typing import Any

from llm_jax.base.errors import CheckpointError
from llm_jax.config.model import NOT_COMPUTED, ModelConfig, RotaryConfig
from llm_jax.interop.huggingface.read_config import ACTIVATIONS, FAMILIES, read_model_config

_CLASSES = {
    "gpt2": "GPT2LMHeadModel",
    "llama": "LlamaForCausalLM",
    "mistral": "MistralForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
    "gemma2": "Gemma2ForCausalLM",
    "gemma3_text": "Gemma3ForCausalLM",
    "olmo2": "Olmo2ForCausalLM",
    "phi3": "Phi3ForCausalLM",
    "mixtral": "MixtralForCausalLM",
    "qwen3_moe": "Qwen3MoeForCausalLM",
}
# Some families' own defaults lie outside small vocabularies.
_NO_MARKS = dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id"))


def write_model_config(config: ModelConfig) -> dict[str, Any]:
    """Return the config.json of a family that computes what this decoder computes.

    Raises:
        CheckpointError: no family does.
    """
    wanted = _computed(config)
    closest: list[str] = []
    for family in FAMILIES:
        fields = {"model_type": family, "architectures": [_CLASSES[family]], **_NO_MARKS}
        fields |= dict.fromkeys(("dtype", "torch_dtype"), config.param_dtype) | _fields(family, config)
        try:
            got = _computed(read_model_config(fields))
        except CheckpointError:
            continue
        odd = [name for name, value in vars(wanted).items() if getattr(got, name) != value]
        if not odd:
            return fields
        closest = min(closest or odd, odd, key=len)
    raise CheckpointError(
        "cannot export: no Hugging Face or GGUF architecture has this decoder's "
        + ", ".join(closest or ["parts"])
        + ". For an exportable model use train --depth N --model.gated_mlp --model.activation silu"
    )


def _computed(config: ModelConfig) -> ModelConfig:
    """The settings on which logits depend, all spelt out."""
    usual = ModelConfig()
    return dataclasses.replace(
        config,
        **{name: getattr(usual, name) for name in NOT_COMPUTED},
        num_kv_heads=config.kv_heads,
        d_head=config.head_dim,
        d_ff=config.mlp_width,
        attention_scale=config.attention_scale or 1 / math.sqrt(config.head_dim),
    )


def _fields(family: str, config: ModelConfig) -> dict[str, Any]:
    activation = next(theirs for theirs, ours in ACTIVATIONS.items() if ours == config.activation)
    if family == "gpt2":
        return {
            "vocab_size": config.vocab_size,
            "n_positions": config.context_length,
            "n_embd": config.d_model,
            "n_layer": config.num_layers,
            "n_head": config.num_heads,
            "n_inner": config.mlp_width,
            "layer_norm_epsilon": config.norm_eps,
            "activation_function": activation,
            "tie_word_embeddings": config.tied_head,
        }
    gemma = family.startswith("gemma")
    return {
        "vocab_size": config.vocab_size,
        "max_position_embeddings": config.context_length,
        "hidden_size": config.d_model,
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.num_heads,
        "num_key_value_heads": config.kv_heads,
        "head_dim": config.head_dim,
        "intermediate_size": config.mlp_width,
        "rms_norm_eps": config.norm_eps,
        "hidden_activation" if gemma else "hidden_act": activation,
        "tie_word_embeddings": config.tied_head,
        **_rope(family, config),
        **_special(family, config),
    }


def _special(family: str, config: ModelConfig) -> dict[str, Any]:
    """Fields that not all families have."""
    windows, layers = config.sliding_window > 0, range(config.num_layers)
    kinds = ["full_attention" if config.is_global(layer) else "sliding_attention" for layer in layers]
    if family in ("mistral", "phi3"):
        return {"sliding_window": config.sliding_window or None}
    experts = {"num_experts_per_tok": config.experts_per_token}
    if family == "mixtral":
        return experts | {
            "num_local_experts": config.num_experts,
            "sliding_window": config.sliding_window or None,
        }
    if family == "qwen3_moe":
        return experts | {
            "num_experts": config.num_experts,
            "moe_intermediate_size": config.mlp_width,
            "norm_topk_prob": config.router_normalizes,
            "attention_bias": config.qkv_bias,
        }
    if family in ("qwen2", "qwen3"):
        bias = {"attention_bias": config.qkv_bias} if family == "qwen3" else {}
        whole = kinds.index("sliding_attention") if windows else config.num_layers
        window = {"use_sliding_window": windows, "sliding_window": config.sliding_window or None}
        return bias | window | {"layer_types": kinds, "max_window_layers": whole}
    if family.startswith("gemma"):
        scale = config.attention_scale or 1 / math.sqrt(config.head_dim)
        every = (config.global_every or config.num_layers + 1) if windows else 1
        pattern = {"sliding_window_pattern": every} if family == "gemma3_text" else {}
        return pattern | {
            "sliding_window": config.sliding_window or config.context_length,  # the family always has one
            "layer_types": kinds,
            "query_pre_attn_scalar": round(scale**-2),
            "attn_logit_softcapping": config.attention_cap or None,
            "final_logit_softcapping": config.logit_cap or None,
        }
    mlp = {"mlp_bias": config.mlp_bias} if family == "llama" else {}
    return mlp | {"attention_bias": config.qkv_bias}


def _rope(family: str, config: ModelConfig) -> dict[str, Any]:
    """Rotary positions in the words of transformers 4 and in those of 5: each is silent about the other's."""
    rotary = config.rotary
    scaling = _scaling(rotary)
    older: dict[str, Any] = {"rope_theta": rotary.theta, "rope_scaling": scaling or None}
    newer: dict[str, Any] = {"rope_theta": rotary.theta, "rope_type": "default"} | scaling
    if rotary.fraction != 1:
        older["partial_rotary_factor"] = newer["partial_rotary_factor"] = rotary.fraction
    if family == "gemma3_text":
        local = rotary.local_theta or rotary.theta
        older["rope_local_base_freq"] = local
        sliding = {"rope_theta": local, "rope_type": "default"}
        newer = {"full_attention": newer, "sliding_attention": sliding}
    return older | {"rope_parameters": newer}


def _scaling(rotary: RotaryConfig) -> dict[str, Any]:
    if rotary.scaling == "none":
        return {}
    found: dict[str, Any] = {"rope_type": rotary.scaling, "factor": rotary.factor}
    if rotary.scaling in ("llama3", "yarn"):
        found["original_max_position_embeddings"] = rotary.original_context
    if rotary.scaling == "llama3":
        found |= {"low_freq_factor": rotary.slow_turns, "high_freq_factor": rotary.fast_turns}
    if rotary.scaling == "yarn":
        found |= {"beta_slow": rotary.slow_turns, "beta_fast": rotary.fast_turns}
        found |= {"attention_factor": rotary.magnitude, "truncate": rotary.round_pairs}
    return found
