"""A toy task in one file: a window of tokens belongs to the class of its first token's id, modulo three."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from llm_jax.base.batch import Batch
from llm_jax.base.tree import Tree
from llm_jax.config.model import ModelConfig
from llm_jax.config.run import Config
from llm_jax.data.batches import OrderStart
from llm_jax.data.store import Store
from llm_jax.model import decoder
from llm_jax.tasks import language_modelling
from llm_jax.tasks.task import Metric, Task
from llm_jax.training.losses import weighted_sum
from llm_jax.training.objective import Objective

LABELS = ("zero", "one", "two")


def init_params(key: jax.Array, config: ModelConfig) -> Tree:
    params = decoder.init_params(key, config)
    del params["head"]
    return params | {"classifier": {"kernel": jnp.zeros((config.d_model, len(LABELS)), config.param_dtype)}}


def scores(
    params: Tree, config: ModelConfig, batch: Batch, key: jax.Array | None, first_row: ArrayLike = 0
) -> jax.Array:
    hidden_BTD, _, _ = decoder.hidden_states(
        params, config, batch.tokens, dropout_key=key, first_row=first_row
    )
    return hidden_BTD[:, -1] @ params["classifier"]["kernel"]


def nats(
    params: Tree, config: ModelConfig, batch: Batch, key: jax.Array | None, first_row: ArrayLike = 0
) -> jax.Array:
    """Of the class at the last place, and 0 before it, [B, T]."""
    log_probs_BC = jax.nn.log_softmax(scores(params, config, batch, key, first_row))
    nats_B = -jnp.take_along_axis(log_probs_BC, batch.targets[:, -1:], axis=1)[:, 0]
    return jnp.zeros(batch.targets.shape).at[:, -1].set(nats_B)


def loss(
    params: Tree,
    config: ModelConfig,
    batch: Batch,
    dropout_key: jax.Array | None,
    first_row: ArrayLike = 0,
    use: Any = None,
) -> tuple[jax.Array, jax.Array]:
    return weighted_sum(nats(params, config, batch, dropout_key, first_row), batch.weights)


def classes(batch: Batch) -> Batch:
    """A batch of windows with the class of each as its one target."""
    targets, weights = np.zeros_like(batch.targets), np.zeros_like(batch.weights)
    targets[:, -1], weights[:, -1] = batch.tokens[:, 0] % len(LABELS), 1
    return Batch(batch.tokens, targets, weights)


def batch_at(config: Config, store: Store, index: int, start: OrderStart) -> Batch:
    return classes(language_modelling.batch_at(config, store, index, start))


def evaluate(params: Tree, config: Config, store: Store) -> dict[str, float]:
    length = config.model.context_length
    tokens = store.tokens("validation")
    rows = np.stack([tokens[at : at + length] for at in range(0, len(tokens) - length, length)]).astype(
        np.int32
    )
    batch = classes(Batch(rows, rows, np.ones(rows.shape, np.float32)))
    scores_BC = jax.jit(scores, static_argnums=1)(params, config.model, batch, None)
    log_probs_BC = np.asarray(jax.nn.log_softmax(scores_BC))
    wanted_B = batch.targets[:, -1]
    return {
        "loss": float(-log_probs_BC[np.arange(len(rows)), wanted_B].mean()),
        "accuracy": float((log_probs_BC.argmax(axis=1) == wanted_B).mean()),
    }


TOY = Task(
    Objective(init_params, loss, nats),
    batch_at,
    evaluate,
    (Metric("accuracy", "{accuracy:.1%}"), Metric("validation loss", "{loss:.4f}", "nats per text")),
    "accuracy {accuracy:.1%}, {loss:.3f} nats",
    "nats per text",
    lambda config, store: {"chance": math.log(len(LABELS))},
    lambda config, store: LABELS,
)
