"""GPT-2 as settings of our decoder, and transformers' weights by our names."""

from typing import Any

import numpy as np
import torch
from transformers import GPT2Config

from llm_jax.model_config import ModelConfig
from llm_jax.tree import Tree, unflatten

SWITCHES: dict[str, Any] = {
    "positions": "learned",
    "activation": "gelu",
    "qkv_bias": True,
    "tied_head": True,
    "head_bias": False,
    "initializer": "gpt2",
    "dropout": 0.0,
}


def their_config(config: ModelConfig, **options: Any) -> GPT2Config:
    """transformers' configuration of the same shape."""
    return GPT2Config(
        vocab_size=config.vocab_size,
        n_positions=config.context_length,
        n_embd=config.d_model,
        n_layer=config.num_layers,
        n_head=config.num_heads,
        n_inner=config.mlp_width,
        layer_norm_epsilon=config.norm_eps,
        **options,
    )


def our_tree(tensors: dict[str, torch.Tensor], config: ModelConfig) -> Tree:
    """transformers' parameters, or their gradients, by our names."""
    d, n, h = config.d_model, config.num_heads, config.head_dim
    found = {name: tensor.detach().numpy() for name, tensor in tensors.items()}

    def stacked(name: str) -> np.ndarray:
        return np.stack([found[f"transformer.h.{i}.{name}"] for i in range(config.num_layers)])

    leaves: dict[str, Any] = {
        "token_embedding/embedding": found["transformer.wte.weight"],
        "position_embedding/embedding": found["transformer.wpe.weight"],
        "final_norm/scale": found["transformer.ln_f.weight"],
        "final_norm/bias": found["transformer.ln_f.bias"],
        "blocks/attention_output/kernel": stacked("attn.c_proj.weight").reshape(-1, n, h, d),
        "blocks/attention_output/bias": stacked("attn.c_proj.bias"),
        "blocks/mlp_up/kernel": stacked("mlp.c_fc.weight"),
        "blocks/mlp_up/bias": stacked("mlp.c_fc.bias"),
        "blocks/mlp_down/kernel": stacked("mlp.c_proj.weight"),
        "blocks/mlp_down/bias": stacked("mlp.c_proj.bias"),
    }
    for i in (1, 2):
        leaves[f"blocks/norm_{i}/scale"] = stacked(f"ln_{i}.weight")
        leaves[f"blocks/norm_{i}/bias"] = stacked(f"ln_{i}.bias")
    weights = np.split(stacked("attn.c_attn.weight"), 3, axis=2)
    biases = np.split(stacked("attn.c_attn.bias"), 3, axis=1)
    for name, weight, bias in zip(("query", "key", "value"), weights, biases, strict=True):
        leaves[f"blocks/{name}/kernel"] = weight.reshape(-1, d, n, h)
        leaves[f"blocks/{name}/bias"] = bias.reshape(-1, n, h)
    return unflatten(leaves)
