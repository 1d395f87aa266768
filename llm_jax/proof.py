"""Our program as the golden comparison asks for it: import, forward, loss, gradients, training and greedy
decoding wired together.
"""

import dataclasses
from functools import partial
from typing import Any

import jax
import numpy as np

from llm_jax.batch import Batch
from llm_jax.config import Config, OptimConfig, SamplingConfig, TrainConfig
from llm_jax.evaluation.parity import Arrays, Program
from llm_jax.inference.decode import generate_tokens
from llm_jax.interop.torch_tutorial import export_state_dict, import_params, infer_config
from llm_jax.model.decoder import forward
from llm_jax.model_config import ModelConfig
from llm_jax.training.losses import next_token_loss
from llm_jax.training.optimizer import make_horizon, make_optimizer
from llm_jax.training.step import train_step
from llm_jax.tree import Tree


def tutorial_program(weights: Arrays, context_length: int, dtype: str) -> Program:
    """The program for models shaped like these weights; "float64" needs `jax.enable_x64`."""
    model = dataclasses.replace(
        infer_config(weights, context_length), dropout=0.0, dtype=dtype, param_dtype=dtype
    )
    read = partial(_import, model, dtype)

    def logits(weights: Arrays, tokens: np.ndarray) -> np.ndarray:
        return np.asarray(jax.jit(forward, static_argnums=1)(read(weights), model, tokens)[0])

    def loss_and_gradients(weights: Arrays, tokens: np.ndarray) -> tuple[float, Arrays]:
        def mean(params: Tree, batch: Batch) -> jax.Array:
            total, weight = next_token_loss(params, model, batch, None)
            return total / weight

        loss, gradients = jax.jit(jax.value_and_grad(mean))(read(weights), as_batch(tokens))
        named = export_state_dict(gradients, model)
        return float(loss), {name: g for name, g in named.items() if not name.endswith("tril")}

    def train(weights: Arrays, batches: np.ndarray, rate: float) -> tuple[np.ndarray, Arrays]:
        optim = OptimConfig(learning_rate=rate)
        config = Config(
            model=model, optim=optim, train=TrainConfig(steps=len(batches), batch_size=batches.shape[1])
        )
        params = read(weights)
        state: dict[str, Any] = {
            "params": params,
            "opt_state": make_optimizer(optim, make_horizon(optim, len(batches))).init(params),
            "counters": {name: np.int32(0) for name in ("step", "batch", "skipped", "rollbacks")},
        }
        losses = []
        for tokens in batches:
            state, metrics = train_step(config, state, as_batch(tokens))
            losses.append(float(metrics["loss_sum"]) / float(metrics["weight"]))
        return np.array(losses), export_state_dict(state["params"], model)

    def greedy(weights: Arrays, prompt: np.ndarray, length: int) -> np.ndarray:
        start = prompt.ravel().tolist()
        rows = generate_tokens(
            read(weights),
            model,
            [start],
            max_new_tokens=length - len(start),
            sampling=SamplingConfig(temperature=0),
            seed=0,
        )
        return np.array(start + [int(row[0]) for row in rows])

    return Program(logits, loss_and_gradients, train, greedy)


def as_batch(tokens: np.ndarray) -> Batch:
    """Windows [B, T + 1] as inputs, targets and weights of one."""
    tokens = tokens.astype(np.int32)
    return Batch(tokens[:, :-1], tokens[:, 1:], np.ones(tokens[:, 1:].shape, np.float32))


def _import(model: ModelConfig, dtype: str, weights: Arrays) -> Tree:
    return jax.tree.map(lambda leaf: jax.numpy.asarray(leaf, dtype), import_params(weights, model))
