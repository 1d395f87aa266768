"""The GPT-2 preset beside transformers' GPT-2, long prompt, odd vocabulary, other eps."""

import jax
import numpy as np
import pytest
import torch
from transformers import GPT2LMHeadModel

from llm_jax.model.decoder import abstract_params, forward
from llm_jax.model_config import ModelConfig
from llm_jax.proof import as_batch
from llm_jax.training.losses import next_token_loss
from llm_jax.tree import Tree, flatten, require_same_shapes
from tests.parity.gpt2 import SWITCHES, our_tree, their_config

SHAPE = {"vocab_size": 511, "context_length": 640, "d_model": 24, "num_layers": 3, "num_heads": 3}


def our_config(dtype: str) -> ModelConfig:
    return ModelConfig(norm_eps=2e-5, dtype=dtype, param_dtype=dtype, **SWITCHES, **SHAPE)


def torch_model(dtype: str) -> GPT2LMHeadModel:
    config = our_config(dtype)
    torch.manual_seed(0)
    model = GPT2LMHeadModel(
        their_config(
            config,
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
