"""Texts that share a row are to a model what they are alone: loss, gradients, the mean of their states."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from llm_jax.base.batch import Batch
from llm_jax.base.tree import Tree
from llm_jax.config.model import ModelConfig, RotaryConfig
from llm_jax.model import heads
from llm_jax.model.decoder import init_params
from llm_jax.training.label_losses import OBJECTIVES
from llm_jax.training.losses import NEXT_TOKEN
from llm_jax.training.objective import Objective

LENGTHS = (5, 3, 6)  # of texts, 14 of the context's 16 tokens
SMALL = ModelConfig(
    vocab_size=31, d_model=16, num_layers=2, num_heads=2, context_length=16, dropout=0.0, num_labels=4
)
KINDS = {
    "sinusoidal": {},
    "learned": {"positions": "learned"},
    "rotary": {"positions": "rotary"},
    "windows": {"positions": "rotary", "sliding_window": 3, "rotary": RotaryConfig(local_theta=100.0)},
}
texts = [np.random.default_rng(at).integers(0, 31, length) for at, length in enumerate(LENGTHS)]


def together() -> Batch:
    """All texts in one row; the last two tokens are padding."""
    batch = Batch(
        *(np.zeros((1, 16), kind) for kind in (np.int32, np.int32, np.float32)), np.arange(16)[None]
    )
    at = 0
    for text in texts:
        alone = by_itself(text)
        for packed, own in zip(batch[:3], alone[:3], strict=True):
            packed[0, at : at + len(text)] = own[0, : len(text)]
        batch.begins[0, at : at + len(text)] = at
        at += len(text)
    return batch


def by_itself(text: np.ndarray) -> Batch:
    batch = Batch(
        *(np.zeros((1, 16), kind) for kind in (np.int32, np.int32, np.float32)), np.zeros((1, 16), int)
    )
    batch.tokens[0, : len(text)], batch.targets[0, : len(text)] = text, np.roll(text, -1) % 4
    batch.weights[0, : len(text) - 1] = 1
    return batch


def gradient(objective: Objective, params: Tree, config: ModelConfig, batch: Batch) -> tuple:
    loss = lambda params: objective.loss(params, config, batch, None)  # noqa: E731
    return jax.jit(jax.value_and_grad(loss, has_aux=True))(params)


@pytest.mark.parametrize("objective", [NEXT_TOKEN, *OBJECTIVES.values()], ids=["next", *OBJECTIVES])
@pytest.mark.parametrize("kind", KINDS)
def test_a_row_of_several_texts_has_their_losses_and_gradients(kind: str, objective: Objective) -> None:
    config = dataclasses.replace(SMALL, **KINDS[kind])
    begin = heads.init_params if objective.packed else init_params
    params = begin(jax.random.key(0), config)
    if objective.packed:  # a head of zeros would have no gradient to pass on
        head = jax.random.normal(jax.random.key(1), (16, 4))
        params = params | {heads.LABEL_HEAD: {"kernel": head, "bias": jnp.zeros(4)}}
    (total, weight), gradients = gradient(objective, params, config, together())
    alone = [gradient(objective, params, config, by_itself(text)) for text in texts]
    assert weight == sum(loss[1] for loss, _ in alone) == 11
    np.testing.assert_allclose(total, sum(loss[0] for loss, _ in alone), rtol=1e-6)
    wanted = jax.tree.map(lambda *parts: sum(parts), *(each for _, each in alone))
    for got, want in zip(jax.tree.leaves(gradients), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(got / weight, want / weight, atol=1e-6)  # as a step takes them
    (naive, _), _ = gradient(objective, params, config, together()._replace(begins=np.zeros((1, 16), int)))
    assert abs(naive - total) > 1e-3
