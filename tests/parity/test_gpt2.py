"""The GPT-2 preset beside transformers' GPT-2, long prompt, odd vocabulary, other eps."""

from typing import Any

import jax
import numpy as np
import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from llm_jax.config import ModelConfig
from llm_jax.model.decoder import abstract_params, forward
from llm_jax.proof import as_batch
from llm_jax.training.losses import next_token_loss
from llm_jax.tree import Tree, flatten, require_same_shapes, unflatten

SHAPE = {"vocab_size": 511, "context_length": 640, "d_model": 24, "num_layers": 3, "num_heads": 3}


def our_config(dtype: str) -> ModelConfig:
    return ModelConfig(
        positions="learned",
        activation="gelu",
        qkv_bias=True,
        tied_head=True,
        head_bias=False,
        initializer="gpt2",
        norm_eps=2e-5,
        dropout=0.0,
        dtype=dtype,
        param_dtype=dtype,
        **SHAPE,
    )


def torch_model(dtype: str) -> GPT2LMHeadModel:
    config = our_config(dtype)
    torch.manual_seed(0)
    model = GPT2LMHeadModel(
        GPT2Config(
            vocab_size=config.vocab_size,
            n_positions=config.context_length,
            n_embd=config.d_model,
            n_layer=config.num_layers,
            n_head=config.num_heads,
            layer_norm_epsilon=config.norm_eps,
            attn_pdrop=0,
            embd_pdrop=0,
            resid_pdrop=0,
            attn_implementation="eager",
            initializer_range=0.2,
        )
    ).to(getattr(torch, dtype))
    for (
        parameter
    ) in model.parameters():  # biases start at zero and norms at one, where a swapped name would hide
        parameter.data += 0.1 * torch.randn_like(parameter)
    return model.eval()


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


@pytest.mark.parametrize(("dtype", "bound"), [("float32", 1e-5), ("float64", 1e-10)])
def test_gpt2_equals_transformers(dtype: str, bound: float) -> None:
    model, config = torch_model(dtype), our_config(dtype)
    window = np.random.default_rng(0).integers(0, config.vocab_size, (2, 601))
    tokens = torch.tensor(window)
    output = model(tokens[:, :-1])
    loss = torch.nn.functional.cross_entropy(output.logits.flatten(0, 1), tokens[:, 1:].flatten())
    loss.backward()
    with jax.enable_x64(dtype == "float64"):
        params = our_tree(dict(model.named_parameters()), config)
        require_same_shapes(params, abstract_params(config), "GPT-2")

        def mean(params: Tree) -> jax.Array:
            total, weight = next_token_loss(params, config, as_batch(window), None)
            return total / weight

        logits, _, _ = jax.jit(forward, static_argnums=1)(params, config, as_batch(window).tokens)
        our_loss, gradients = jax.jit(jax.value_and_grad(mean))(params)
        wanted_logits = output.logits.detach().numpy()
        assert np.abs(logits - wanted_logits).max() <= bound * np.abs(wanted_logits).max()
        assert abs(float(our_loss) - loss.item()) <= bound * loss.item()
        torch_gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
        wanted = dict(flatten(our_tree(torch_gradients, config)))
        for path, leaf in flatten(gradients):
            if path == "blocks/key/bias":  # exactly zero in theory: softmax does not see it
                assert np.abs(leaf).max() < 1e-4 * bound**0.5
                continue
            assert np.abs(leaf - wanted[path]).max() <= bound * np.abs(wanted[path]).max(), path
