"""Tiny models of every family by transformers: random weights, odd numbers, settings off their defaults."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import transformers
from torch.overrides import TorchFunctionMode

_SMALL = {"vocab_size": 211, "hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 3}
_SMALL |= {"num_attention_heads": 6, "num_key_value_heads": 2, "max_position_embeddings": 640}
_SMALL |= {"rms_norm_eps": 3e-5, "pad_token_id": None, "bos_token_id": 1, "eos_token_id": 2}
_GEMMA = {"head_dim": 8, "query_pre_attn_scalar": 11, "sliding_window": 37}
_MOE = {"num_experts": 7, "num_experts_per_tok": 2, "moe_intermediate_size": 30}
_LOCAL = {"rope_type": "default", "rope_theta": 700.0}
_FULL = {"rope_type": "linear", "rope_theta": 9000.0, "factor": 8.0}
_LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.5, "high_freq_factor": 5.0}
_YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 160, "beta_fast": 20.0}


def rope(theta: float = 3000.0, **more: Any) -> dict[str, Any]:
    return {"rope_parameters": {"rope_type": "default", "rope_theta": theta} | more}


GPT2 = {"vocab_size": 211, "n_positions": 640, "n_embd": 24, "n_layer": 3, "n_head": 3}
GPT2 |= {"layer_norm_epsilon": 3e-5, "n_inner": 50, "bos_token_id": 1, "eos_token_id": 2}

# Name -> transformers' class of the configuration, and its fields.
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "gpt2": ("GPT2Config", GPT2),
    "llama": ("LlamaConfig", _SMALL | rope()),
    "llama, tied, biases, wide heads": (
        "LlamaConfig",
        _SMALL
        | rope()
        | {"tie_word_embeddings": True, "attention_bias": True, "mlp_bias": True, "head_dim": 10},
    ),
    "llama, linear": ("LlamaConfig", _SMALL | rope(rope_type="linear", factor=3.0)),
    "llama, llama3": ("LlamaConfig", _SMALL | rope(**_LLAMA3, original_max_position_embeddings=160)),
    "llama, yarn": ("LlamaConfig", _SMALL | rope(**_YARN) | {"head_dim": 32}),
    "llama, yarn, mscale": (
        "LlamaConfig",
        _SMALL | rope(**_YARN, beta_slow=2.0, mscale=0.7, mscale_all_dim=0.9) | {"head_dim": 32},
    ),
    "mistral": ("MistralConfig", _SMALL | rope() | {"sliding_window": 53}),
    "qwen2": ("Qwen2Config", _SMALL | rope()),
    "qwen2, windows": (
        "Qwen2Config",
        _SMALL | rope() | {"use_sliding_window": True, "sliding_window": 41, "max_window_layers": 0},
    ),
    "qwen3": ("Qwen3Config", _SMALL | rope() | {"head_dim": 10, "attention_bias": True}),
    "gemma2": (
        "Gemma2Config",
        _SMALL | rope() | _GEMMA | {"attn_logit_softcapping": 1.5, "final_logit_softcapping": 2.5},
    ),
    "gemma3": (
        "Gemma3TextConfig",
        _SMALL
        | _GEMMA
        | {"num_hidden_layers": 7, "final_logit_softcapping": 3.0}
        | {
            "rope_parameters": {
                "full_attention": rope(9000.0, rope_type="linear", factor=8.0)["rope_parameters"],
                "sliding_attention": _LOCAL,
            }
        },
    ),
    "olmo2": ("Olmo2Config", _SMALL | rope()),
    "phi3": (
        "Phi3Config",
        _SMALL | rope(partial_rotary_factor=0.5) | {"head_dim": 12, "hidden_size": 72, "sliding_window": 61},
    ),
    "mixtral": (
        "MixtralConfig",
        _SMALL | rope() | {"num_local_experts": 5, "num_experts_per_tok": 3, "sliding_window": 47},
    ),
    "qwen3 moe": ("Qwen3MoeConfig", _SMALL | rope() | _MOE | {"head_dim": 10}),
    "qwen3 moe, normalized, biases": (
        "Qwen3MoeConfig",
        _SMALL | rope() | _MOE | {"norm_topk_prob": True, "attention_bias": True},
    ),
}


class _Wide(TorchFunctionMode):
    """The reference's own casts to float32 (in norms, softmax, rotary positions) become casts to float64."""

    def __torch_function__(
        self, func: Callable, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        if func is torch.Tensor.float:
            func = torch.Tensor.double
        wide = lambda value: torch.float64 if value is torch.float32 else value  # noqa: E731
        return func(*map(wide, args), **{name: wide(value) for name, value in (kwargs or {}).items()})


@contextmanager
def precision(dtype: str) -> Iterator[None]:
    """Everything that torch computes is in this type, float32 or float64."""
    if dtype == "float32":
        yield
        return
    torch.set_default_dtype(torch.float64)
    try:
        with _Wide():
            yield
    finally:
        torch.set_default_dtype(torch.float32)


# The reference's readable code rather than its kernels, some of which have no float64.
PLAIN = {"attn_implementation": "eager", "experts_implementation": "eager"}


def reference(name: str, dtype: str) -> tuple[torch.nn.Module, dict[str, Any]]:
    """A model with random weights, to be made and called under `precision`, and its config.json."""
    kind, fields = FAMILIES[name]
    config = getattr(transformers, kind)(**fields)
    torch.manual_seed(0)
    with torch.no_grad():
        model = transformers.AutoModelForCausalLM.from_config(config, **PLAIN)
        model = model.to(getattr(torch, dtype)).eval()
        # Biases start at zero and norms at one, where a swapped name would hide; larger weights show caps.
        for parameter in model.parameters():
            parameter += 0.2 * torch.randn_like(parameter)
    return model, json.loads(config.to_json_string())
