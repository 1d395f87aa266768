"""A batch in parts is the batch: gradients, losses and masks do not depend on into how many it is cut."""

import dataclasses
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from llm_jax.base.batch import Batch
from llm_jax.base.tree import State, flatten
from llm_jax.config.model import ModelConfig
from llm_jax.config.run import Config, OptimConfig, TrainConfig
from llm_jax.model.decoder import abstract_params
from llm_jax.model.dropout import dropout, hashed_bits
from llm_jax.training.losses import NEXT_TOKEN
from llm_jax.training.state import state_from
from llm_jax.training.step import _gradient, run_steps, step_nats

pytestmark = pytest.mark.compiles

DROPOUT: dict[str, Any] = {"dropout": 0.3, "embedding_dropout": 0.2}
EXPERTS: dict[str, Any] = {"num_experts": 4, "experts_per_token": 2, "mlp_bias": False, "router_balance": 1.0}
KINDS: dict[str, tuple[dict[str, Any], int]] = {
    "neither": ({}, 2),
    "dropout": (DROPOUT, 4),
    "experts": (EXPERTS, 2),
    "both, computed again": (DROPOUT | EXPERTS | {"remat": True}, 4),
}


def a_config(tiny: ModelConfig, parts: int, **model: Any) -> Config:
    """In float64, so that no token sits between two experts."""
    sized = {"num_layers": 2, "dropout": 0.0, "dtype": "float64", "param_dtype": "float64"}
    return Config(
        model=dataclasses.replace(tiny, **sized | model),
        optim=OptimConfig(beta1=0.5),
        train=TrainConfig(steps=9, batch_size=4, accumulation_steps=parts, steps_per_dispatch=2),
    )


def a_state(config: Config) -> State:
    """With parameters that compile nothing."""
    draw = np.random.default_rng(0).normal
    shapes = abstract_params(config.model)
    return state_from(config, jax.tree.map(lambda leaf: jnp.asarray(0.3 * draw(size=leaf.shape)), shapes))


def a_batch(config: Config, seed: int = 0) -> Batch:
    """Of rows that have unlike numbers of targets, one of them none."""
    draw, shape = np.random.default_rng(seed), (4, config.model.context_length + 1)
    window = draw.integers(0, config.model.vocab_size, shape).astype(np.int32)
    weights = draw.uniform(0.5, 1.5, (4, shape[1] - 1)).astype(np.float32)
    weights[0, 3:], weights[1] = 0, 0
    return Batch(window[:, :-1], window[:, 1:], weights)


def assert_alike(part: Any, whole: Any) -> None:
    """But for the rounding of weights and shares, which are in float32."""
    for (path, ours), (_, wanted) in zip(flatten(part), flatten(whole), strict=True):
        bound = max(1e-12, 1e-6 * np.abs(wanted).max())  # the slope of a key's bias is nothing but rounding
        np.testing.assert_allclose(ours, wanted, rtol=1e-6, atol=bound, err_msg=path)


@pytest.mark.parametrize("kind", KINDS)
def test_the_gradient_is_that_of_the_whole_batch_however_many_parts_it_has(
    tiny: ModelConfig, kind: str
) -> None:
    model, parts = KINDS[kind]
    with jax.enable_x64(True):
        configs = [a_config(tiny, number, **model) for number in (1, parts)]
        state, batch = a_state(configs[0]), a_batch(configs[0])
        gradient = jax.jit(_gradient, static_argnums=(0, 1))
        whole, cut = (
            dict(zip(("slope", "loss_sum", "weight"), gradient(each, NEXT_TOKEN, state, batch), strict=True))
            for each in configs
        )
        assert_alike(cut, whole)


def test_steps_metrics_and_replayed_nats_are_those_of_the_whole_batch(tiny: ModelConfig) -> None:
    found = []
    with jax.enable_x64(True):
        for parts in (1, 4):
            config = a_config(tiny, parts, num_layers=1, **DROPOUT | EXPERTS)
            batches = [a_batch(config, seed) for seed in range(2)]
            nats = step_nats(config, a_state(config), batches[0])
            state, metrics = run_steps(config, a_state(config), batches, [True, True])
            # The moment after two steps holds both gradients, in halves and quarters.
            found.append({"mu": state["opt_state"][0].mu, "nats": nats, **metrics})
    np.testing.assert_allclose(
        np.sum(np.asarray(nats) * batches[0].weights), metrics["loss_sum"][0], rtol=1e-6
    )
    assert_alike(*found)


def test_rows_lose_what_they_lose_in_the_whole_batch() -> None:
    key, x = jax.random.key(3), jnp.ones((8, 6, 5))
    whole = dropout(key, 0.5, x)
    np.testing.assert_array_equal(jnp.concatenate([dropout(key, 0.5, x[2:4], 2), whole[4:]]), whole[2:])
    # On however many devices the rows of a part lie.
    cut = jax.NamedSharding(jax.make_mesh((4,), ("rows",)), jax.P("rows"))
    parts = jax.jit(partial(hashed_bits, shape=(4, 6, 5)), out_shardings=cut)(key, first_row=jnp.int32(4))
    np.testing.assert_array_equal(parts, hashed_bits(key, (8, 6, 5))[4:])
