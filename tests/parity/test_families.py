"""Every family beside transformers: logits of long prompts, the loss and every gradient."""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from transformers import AutoModelForCausalLM

from llm_jax.base.tree import Tree, require_same_shapes
from llm_jax.config.model import ModelConfig
from llm_jax.interop.huggingface.read_config import read_model_config
from llm_jax.interop.huggingface.tensor_names import export_tensors, import_params
from llm_jax.interop.huggingface.write_config import write_model_config
from llm_jax.interop.huggingface.write_directory import write_directory
from llm_jax.model.decoder import abstract_params, forward
from llm_jax.proofs.tutorial import as_batch
from llm_jax.training.losses import next_token_loss
from tests.parity.families import FAMILIES, PLAIN, precision, reference

WINDOW = np.random.default_rng(0).integers(0, 211, (2, 601))


def ours(config_json: dict[str, Any], tensors: dict[str, np.ndarray], dtype: str) -> tuple[Tree, ModelConfig]:
    read = read_model_config(config_json)
    config = dataclasses.replace(read, dtype=dtype, param_dtype=dtype, router_balance=0.0)
    shapes = {name: tensor.shape for name, tensor in tensors.items()}
    params = import_params(config_json["model_type"], config, shapes, tensors.__getitem__)
    require_same_shapes(params, abstract_params(config), config_json["model_type"])
    return params, config


def arrays(model: Any, folder: Path) -> dict[str, np.ndarray]:
    """The tensors of a model by the names that they have in its files."""
    model.save_pretrained(folder)
    return load_file(folder / "model.safetensors")


def require_near(got: np.ndarray, wanted: np.ndarray, absolute: float, relative: float) -> None:
    difference = got - wanted
    assert np.abs(difference).max() <= absolute
    assert np.linalg.norm(difference) <= relative * np.linalg.norm(wanted)


@pytest.mark.parametrize("name", FAMILIES)
def test_logits_equal_transformers_and_so_do_those_of_what_is_exported(name: str, tmp_path: Path) -> None:
    model, config_json = reference(name, "float32")
    tokens = torch.tensor(WINDOW[:, :-1])
    with torch.no_grad():
        wanted = model(tokens).logits.numpy()
    params, config = ours(config_json, arrays(model, tmp_path / "theirs"), "float32")
    logits = jax.jit(forward, static_argnums=1)(params, config, as_batch(WINDOW).tokens)[0]
    require_near(np.asarray(logits), wanted, 1e-4, 1e-5)
    written = tmp_path / "ours"
    written.mkdir()
    write_directory(written, write_model_config(config), config, params, shard_bytes=20_000)
    again = AutoModelForCausalLM.from_pretrained(written, **PLAIN).eval()
    with torch.no_grad():
        require_near(again(tokens).logits.numpy(), wanted, 1e-5, 1e-6)


@pytest.mark.parametrize("name", FAMILIES)
def test_logits_loss_and_gradients_equal_transformers_in_float64(name: str, tmp_path: Path) -> None:
    with precision("float64"):
        model, config_json = reference(name, "float64")
        tokens = torch.tensor(WINDOW)
        wanted = model(tokens[:, :-1]).logits
        loss = torch.nn.functional.cross_entropy(wanted.flatten(0, 1), tokens[:, 1:].flatten())
        loss.backward()
        tensors = arrays(model, tmp_path / "parameters")
        for parameter in model.parameters():
            parameter.data = parameter.grad
        theirs = arrays(model, tmp_path / "gradients")
    with jax.enable_x64(True):
        params, config = ours(config_json, tensors, "float64")

        def mean(params: Tree) -> tuple[jax.Array, jax.Array]:
            total, weight = next_token_loss(params, config, as_batch(WINDOW), None)
            return total / weight, forward(params, config, as_batch(WINDOW).tokens)[0]

        (our_loss, logits), gradients = jax.jit(jax.value_and_grad(mean, has_aux=True))(params)
        require_near(np.asarray(logits), wanted.detach().numpy(), 1e-9, 1e-10)
        assert abs(float(our_loss) - loss.item()) <= 1e-10
        slopes = dict(export_tensors(config_json["model_type"], config, gradients))
    assert slopes.keys() == theirs.keys()
    for path, slope in slopes.items():
        if path.endswith("k_proj.bias"):  # zero in theory, as the softmax does not see it
            continue
        assert np.abs(slope - theirs[path]).max() <= 1e-9 * np.abs(theirs[path]).max(), path
