"""Our settings in llama.cpp's words: `gguf_config` the other way, which proves them by reading them back."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from llm_jax.base.errors import CheckpointError
from llm_jax.config.model import ModelConfig
from llm_jax.interop.gguf.read_config import llama3_factors, llama3_scaling, read_config
from llm_jax.interop.gguf.tensor_names import origins
from llm_jax.interop.huggingface.read_config import read_model_config

# Hugging Face's model_type -> llama.cpp's architecture.
_ARCHITECTURES = {
    "llama": "llama",
    "qwen2": "qwen2",
    "qwen3": "qwen3",
    "gemma2": "gemma2",
    "gemma3_text": "gemma3",
    "gpt2": "gpt2",
}
_EVERY = {"gemma2": 2, "gemma3": 6}  # Every so many layers one has no window, where a file does not say it.
_FACTORS = "rope_freqs.weight"


def write_settings(config_json: Mapping[str, Any]) -> tuple[str, dict[str, Any], dict[str, np.ndarray]]:
    """Return architecture, settings, and tensors that are settings, of a model that llama.cpp computes as we
    do.

    Args:
        config_json: of `config_json.write_model_config`.

    Raises:
        CheckpointError: llama.cpp has no architecture for this family, or would compute something else.
    """
    family = config_json["model_type"]
    if family not in _ARCHITECTURES:
        raise CheckpointError(
            f"GGUF is written for {', '.join(_ARCHITECTURES.values())}, and none of these "
            f"computes what this model does, which is a {family}; export it as huggingface"
        )
    arch, config = _ARCHITECTURES[family], read_model_config(config_json)
    settings = _gpt2(config) if arch == "gpt2" else _rotary_decoder(arch, config)
    factors: dict[str, np.ndarray] = {}
    if config.positions == "rotary" and config.rotary.scaling == "llama3":
        slower = llama3_factors(config.rotary.theta, config.head_dim, config.rotary.factor)
        factors[_FACTORS] = slower.astype(np.float32)
    settings = {"general.architecture": arch} | {f"{arch}.{key}": value for key, value in settings.items()}
    _require_same_decoder(arch, settings, factors, config_json)
    return arch, settings, factors


def _gpt2(config: ModelConfig) -> dict[str, Any]:
    return _sizes(config) | {"attention.layer_norm_epsilon": config.norm_eps}


def _sizes(config: ModelConfig) -> dict[str, Any]:
    return {
        "vocab_size": config.vocab_size,
        "context_length": config.context_length,
        "embedding_length": config.d_model,
        "block_count": config.num_layers,
        "feed_forward_length": config.mlp_width,
        "attention.head_count": config.num_heads,
    }


def _rotary_decoder(arch: str, config: ModelConfig) -> dict[str, Any]:
    settings = _sizes(config) | {
        "attention.head_count_kv": config.kv_heads,
        "attention.key_length": config.head_dim,
        "attention.value_length": config.head_dim,
        "attention.layer_norm_rms_epsilon": config.norm_eps,
        "rope.dimension_count": config.head_dim,
        "rope.freq_base": config.rotary.theta,
    }
    rotary = config.rotary
    if rotary.scaling in ("linear", "yarn"):
        settings |= {"rope.scaling.type": rotary.scaling, "rope.scaling.factor": rotary.factor}
    if rotary.scaling == "yarn":
        settings |= {
            "rope.scaling.original_context_length": rotary.original_context,
            "rope.scaling.yarn_beta_fast": rotary.fast_turns,
            "rope.scaling.yarn_beta_slow": rotary.slow_turns,
        }
    if arch == "gemma3":
        settings["rope.freq_base_swa"] = rotary.local_theta or rotary.theta
    if arch in _EVERY and config.sliding_window:
        settings["attention.sliding_window"] = config.sliding_window
        every = config.global_every or config.num_layers + 1  # more than there are: every one has a window
        if every != _EVERY[arch]:
            settings["attention.sliding_window_pattern"] = every
    if arch == "gemma2" and config.attention_cap:
        settings["attn_logit_softcapping"] = config.attention_cap
    if arch in _EVERY and config.logit_cap:
        settings["final_logit_softcapping"] = config.logit_cap
    return settings


def _require_same_decoder(
    arch: str, settings: dict[str, Any], factors: dict[str, np.ndarray], config_json: Mapping[str, Any]
) -> None:
    """Settings that read back as another decoder are of one that llama.cpp has not got."""
    wanted = read_model_config(config_json)
    shapes = {origin.name: origin.stored_shape for origin in origins(arch, config_json).values()}
    fields = read_config(settings, shapes)
    if factors:
        fields["rope_scaling"] = llama3_scaling(factors[_FACTORS], fields)
    got = read_model_config(fields)
    if odd := [name for name, value in vars(wanted).items() if getattr(got, name) != value]:
        raise CheckpointError(
            f"llama.cpp's {arch} has not this model's {', '.join(odd)}; export it as huggingface"
        )
