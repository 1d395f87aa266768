"""GPT-2 as settings of our decoder, and transformers' weights by our names, for what trains or times it."""

from typing import Any

import torch
from transformers import GPT2Config

from llm_jax.base.tree import Tree
from llm_jax.config.model import ModelConfig
from llm_jax.interop.huggingface.tensor_names import import_params

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
    found = {name: tensor.detach().numpy() for name, tensor in tensors.items()}
    shapes = {name: tensor.shape for name, tensor in found.items()}
    return import_params("gpt2", config, shapes, found.__getitem__)
