"""llama.cpp's settings of a model in the words of Hugging Face's config.json. What cannot be said there is
refused; nothing is ignored.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from llm_jax.base.errors import CheckpointError
from llm_jax.interop.source import quoted

_SILU = {"hidden_act": "silu"}
_GELU = {"hidden_activation": "gelu_pytorch_tanh", "attention_bias": False}
_NO_WINDOW = {"use_sliding_window": False}
# Architecture -> the fields that all of its models share.
_FIXED: dict[str, dict[str, Any]] = {
    "llama": {"architectures": ["LlamaForCausalLM"], "model_type": "llama", **_SILU},
    "qwen2": {"architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", **_SILU, **_NO_WINDOW},
    "qwen3": {
        "architectures": ["Qwen3ForCausalLM"],
        "model_type": "qwen3",
        "attention_bias": False,
        **_SILU,
        **_NO_WINDOW,
    },
    "gemma2": {"architectures": ["Gemma2ForCausalLM"], "model_type": "gemma2", **_GELU},
    "gemma3": {"architectures": ["Gemma3ForCausalLM"], "model_type": "gemma3_text", **_GELU},
    "gpt2": {
        "architectures": ["GPT2LMHeadModel"],
        "model_type": "gpt2",
        "activation_function": "gelu_new",
    },
}
# Settings that say nothing, or only with these values.
_SILENT: dict[str, tuple[Any, ...]] = {
    "expert_count": (0,),
    "expert_used_count": (0,),
    "attention.causal": (True,),
    "tensor_data_layout": ("Meta AI original pth",),
    "rope.scaling.finetuned": (True, False),
    "rope.scaling.attn_factor": (1.0,),
}
# By number of layers: those that scale scores by the stream's width over the heads, not by a head's width.
_SCALED_BY_STREAM = {"gemma2": 46, "gemma3": 62}
# What Llama 3.1, 3.2 and 3.3 share: turns in the original context, and that context.
_SLOW, _FAST, _ORIGINAL = 1.0, 4.0, 8192


def read_config(settings: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    """Return config.json's fields. Every setting of the architecture is used, or known to say nothing, or
    refused.

    Args:
        settings: the file's, by llama.cpp's names.
        shapes: of all its tensors, by llama.cpp's names.

    Raises:
        CheckpointError: a setting is missing, impossible, or has no place in config.json.
    """
    arch = architecture(settings)
    own = {key: value for key, value in settings.items() if key.startswith(f"{arch}.")}
    left = {key.removeprefix(f"{arch}."): value for key, value in own.items()}
    config = {
        **_FIXED[arch],
        "vocab_size": _num_rows(settings, shapes),
        "tie_word_embeddings": "output.weight" not in shapes,
    }
    layers = whole(left, "block_count")
    if layers > len(shapes):
        raise CheckpointError(f"block_count ({layers:,}) must be at most the {len(shapes):,} tensors")
    config |= _gpt2(left, layers) if arch == "gpt2" else _rotary_decoder(left, arch, layers)
    if arch == "llama":
        config["attention_bias"] = "blk.0.attn_q.bias" in shapes
        config["mlp_bias"] = "blk.0.ffn_gate.bias" in shapes
    if arch in ("gemma2", "gemma3"):
        config |= _gemma(left, arch, config)
    left.pop("vocab_size", None)  # The embedding's rows are what there is.
    for key, value in left.items():
        if key not in _SILENT or not _is_one_of(value, *_SILENT[key]):
            raise CheckpointError(f"{arch}.{quoted(key)} must be absent, as it has no place in config.json")
    return config


def _gpt2(left: dict[str, Any], layers: int) -> dict[str, Any]:
    """Fields of GPT-2, which has names of its own for all of them."""
    width = whole(left, "embedding_length")
    return {
        "n_positions": whole(left, "context_length"),
        "n_embd": width,
        "n_layer": layers,
        "n_head": whole(left, "attention.head_count"),
        "n_inner": whole(left, "feed_forward_length", 4 * width),
        "layer_norm_epsilon": number(left, "attention.layer_norm_epsilon"),
    }


def _rotary_decoder(left: dict[str, Any], arch: str, layers: int) -> dict[str, Any]:
    """Fields that all families have whose positions are rotary."""
    width, heads = whole(left, "embedding_length"), whole(left, "attention.head_count")
    head_dim = whole(left, "attention.key_length", width // heads if not width % heads else None)
    config = {
        "hidden_size": width,
        "intermediate_size": whole(left, "feed_forward_length"),
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": whole(left, "attention.head_count_kv", heads),
        "head_dim": head_dim,
        "max_position_embeddings": whole(left, "context_length"),
        "rms_norm_eps": number(left, "attention.layer_norm_rms_epsilon"),
        **_rotary(left, arch),
    }
    if head_dim % 2:
        raise CheckpointError(f"a head's width must be even for rotary positions, got {head_dim:,}")
    for key in ("attention.value_length", "rope.dimension_count"):
        if (length := whole(left, key, head_dim)) != head_dim:
            raise CheckpointError(f"{key} must be a head's width ({head_dim:,}), got {length:,}")
    return config


def architecture(settings: Mapping[str, Any]) -> str:
    """Return the architecture, one that can be read, of a whole model in today's encoding."""
    name = settings.get("general.architecture")
    if not _is_one_of(name, *_FIXED):
        raise CheckpointError(f"general.architecture must be one of {', '.join(_FIXED)}, got {quoted(name)}")
    if not _is_one_of(settings.get("split.count", 1), 0, 1):
        raise CheckpointError("must be a whole model, got a part of one; merge the parts first")
    if not _is_one_of(encoding := settings.get("general.quantization_version", 2), 2):
        raise CheckpointError(
            f"general.quantization_version must be 2, got {quoted(encoding)}; convert it anew"
        )
    return str(name)


def llama3_scaling(factors: np.ndarray, config: Mapping[str, Any]) -> dict[str, Any]:
    """Return Llama 3's scaling of rotary positions, as rope_scaling has it, proved by computing the factors
    anew.

    A file has only what each pair of entries is slowed by, not the four numbers that it was computed from;
    all of Meta's models share three of them.

    Args:
        factors: one for each pair of a head's entries.
        config: with rope_theta and head_dim.

    Raises:
        CheckpointError: Llama 3's rule does not give these factors.
    """
    factor = float(factors.max())
    wanted = np.zeros(1)
    if 1 <= factor < 1e6:
        wanted = llama3_factors(config["rope_theta"], config["head_dim"], factor)
    if config["rope_scaling"] or factors.shape != wanted.shape or not np.allclose(factors, wanted, rtol=1e-4):
        raise CheckpointError(
            "rope_freqs.weight must hold the factors of Llama 3's scaling of a context of 8,192 tokens, "
            "and there must be no other scaling"
        )
    return {
        "rope_type": "llama3",
        "factor": float(str(factors.max())),
        "low_freq_factor": _SLOW,
        "high_freq_factor": _FAST,
        "original_max_position_embeddings": _ORIGINAL,
    }


def llama3_factors(theta: float, head_dim: int, factor: float) -> np.ndarray:
    """Return how many times slower each pair of a head's entries turns after Meta's scaling: [head_dim
    / 2].
    """
    pairs = np.arange(0, head_dim, 2) / head_dim
    turns = _ORIGINAL * theta**-pairs / (2 * np.pi)
    share = np.clip((turns - _SLOW) / (_FAST - _SLOW), 0, 1)  # of the frequency that is kept as it is
    return 1 / ((1 - share) / factor + share)


def whole(left: dict[str, Any], key: str, default: int | None = None) -> int:
    """Return a positive whole number, taken out of the settings; one of each layer's must be equal for
    all.
    """
    value = left.pop(key, default)
    if isinstance(value, np.ndarray) and value.size and (value == value[0]).all():
        value = value[0].item()
    if type(value) is not int or not 0 < value < 1 << 31:
        raise CheckpointError(f"{key} must be a whole number from 1 to 2^31 - 1, got {quoted(value)}")
    return value


def number(left: dict[str, Any], key: str, default: float | None = None) -> float:
    """Return a positive number, taken out of the settings."""
    value = left.pop(key, default)
    if type(value) not in (int, float) or not 1e-30 < value < 1e30:
        raise CheckpointError(f"{key} must be a number from 1e-30 to 1e30, got {quoted(value)}")
    return float(value)


def _is_one_of(value: Any, *wanted: Any) -> bool:
    """Whether it is one of these plain values; an array never is."""
    return isinstance(value, (bool, int, float, str)) and value in wanted


def _num_rows(settings: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]]) -> int:
    """Size of the vocabulary: the embedding's rows, of which the tokenizer may leave some unused."""
    shape, tokens = shapes.get("token_embd.weight", ()), settings.get("tokenizer.ggml.tokens", [])
    if len(shape) != 2:
        raise CheckpointError(f"token_embd.weight must have 2 dimensions, got {shape or 'no such tensor'}")
    if not isinstance(tokens, list) or len(tokens) > shape[0]:
        raise CheckpointError(f"tokenizer.ggml.tokens must be at most {shape[0]:,} strings, one for each row")
    return shape[0]


def _rotary(left: dict[str, Any], arch: str) -> dict[str, Any]:
    fields: dict[str, Any] = {"rope_theta": number(left, "rope.freq_base", 10000.0), "rope_scaling": None}
    if arch == "gemma3":
        fields["rope_local_base_freq"] = number(left, "rope.freq_base_swa", 10000.0)
    factor_key = "rope.scaling.factor" if "rope.scaling.factor" in left else "rope.scale_linear"
    kind = left.pop("rope.scaling.type", "linear" if factor_key in left else "none")
    if not _is_one_of(kind, "none", "linear", "yarn"):
        raise CheckpointError(f"rope.scaling.type must be none, linear or yarn, got {quoted(kind)}")
    factor = number(left, factor_key, 1.0)
    context = {"rope.scaling.original_context_length": left.pop("rope.scaling.original_context_length", None)}
    if kind == "linear" and factor != 1:
        fields["rope_scaling"] = {"rope_type": "linear", "factor": factor}
    if kind == "yarn":
        fields["rope_scaling"] = {
            "rope_type": "yarn",
            "factor": factor,
            "original_max_position_embeddings": whole(context, "rope.scaling.original_context_length"),
            "beta_fast": number(left, "rope.scaling.yarn_beta_fast", 32.0),
            "beta_slow": number(left, "rope.scaling.yarn_beta_slow", 1.0),
        }
    return fields


def _gemma(left: dict[str, Any], arch: str, config: Mapping[str, Any]) -> dict[str, Any]:
    """Windows, caps and the scale of scores; what a file leaves out is as llama.cpp takes it."""
    second = arch == "gemma2"
    windowed = second or "attention.sliding_window" in left
    window = whole(left, "attention.sliding_window", 4096) if windowed else None
    every = whole(left, "attention.sliding_window_pattern", 2 if second else 6)
    layers = config["num_hidden_layers"]
    by_stream = layers == _SCALED_BY_STREAM[arch]
    scalar = config["hidden_size"] / config["num_attention_heads"] if by_stream else float(config["head_dim"])
    if "attention.scale" in left:
        scalar = number(left, "attention.scale") ** -2
    caps = {
        "attn_logit_softcapping": 50.0 if second else None,
        "final_logit_softcapping": 30.0 if second else None,
    }
    return {
        "sliding_window": window,
        "layer_types": [
            "full_attention" if window is None or not (layer + 1) % every else "sliding_attention"
            for layer in range(layers)
        ],
        "query_pre_attn_scalar": int(scalar) if scalar.is_integer() else scalar,
        **{key: number(left, key, cap) if cap or key in left else None for key, cap in caps.items()},
    }
