"""Laws of the mixture of experts: where tokens go, what comes back, and what pulls the router."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from llm_jax.base.errors import UserError
from llm_jax.base.tree import Tree
from llm_jax.config.model import ModelConfig
from llm_jax.config.run import Config, OptimConfig, TrainConfig
from llm_jax.model.decoder import abstract_params, forward, init_params
from llm_jax.model.moe import Routing, expert_use, imbalance, mix_experts, route
from llm_jax.proofs.tutorial import as_batch
from llm_jax.training.losses import next_token_loss, token_nats
from llm_jax.training.state import init_state
from llm_jax.training.step import train_step
from llm_jax.training.throughput import flops_per_token

pytestmark = pytest.mark.compiles

EXPERTS: dict[str, Any] = {"num_experts": 5, "experts_per_token": 2, "mlp_bias": False, "dropout": 0.0}
WINDOW = np.random.default_rng(0).integers(0, 37, (3, 13))


@pytest.fixture(scope="module")
def config(tiny: ModelConfig) -> ModelConfig:
    return dataclasses.replace(tiny, **EXPERTS)


@pytest.fixture(scope="module")
def params(config: ModelConfig) -> Tree:
    return init_params(jax.random.key(2), config)


def one_by_one(
    x_BTD: np.ndarray, routing: Routing, gate: np.ndarray | None, up: np.ndarray, down: np.ndarray
) -> np.ndarray:
    """What `mix_experts` gives with ReLU, each choice for itself."""
    output_BTD = np.zeros_like(x_BTD)
    for row, token in np.ndindex(x_BTD.shape[:2]):
        for expert, weight in zip(routing.chosen[row, token], routing.weights[row, token], strict=True):
            x = x_BTD[row, token]
            inside = np.maximum(x @ (up if gate is None else gate)[expert], 0)
            inside = inside if gate is None else inside * (x @ up[expert])
            output_BTD[row, token] += weight * (inside @ down[expert])
    return output_BTD


@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize("pull", [0.0, 50.0], ids=["even", "all to one expert"])
def test_every_token_hears_its_experts_however_uneven_they_are_chosen(gated: bool, pull: float) -> None:
    draw = np.random.default_rng(0).normal
    x, router = draw(size=(2, 7, 6)).astype(np.float32), draw(size=(6, 5)).astype(np.float32)
    x[..., 0], router[0, 3] = 1, router[0, 3] + pull
    up, gate, down = (draw(size=(5, *shape)).astype(np.float32) for shape in ((6, 4), (6, 4), (4, 6)))
    config = ModelConfig(num_experts=5, experts_per_token=2, mlp_bias=False)
    routing = route(config, x, router)
    output, hidden, active = mix_experts(x, routing, jax.nn.relu, gate if gated else None, up, down)
    wanted = one_by_one(x, routing, gate if gated else None, up, down)
    np.testing.assert_allclose(output, wanted, atol=2e-5)
    first = np.einsum("BTD,BTDF->BTF", x, (gate if gated else up)[routing.chosen[..., 0]])
    np.testing.assert_allclose(hidden[:, :, 0], first, atol=2e-5)
    assert hidden.shape == active.shape == (2, 7, 2, 4)
    if pull:
        assert np.all(routing.chosen[..., 0] == 3)


def test_the_router_takes_the_likeliest_and_weighs_them_as_the_model_says(config: ModelConfig) -> None:
    x = np.random.default_rng(1).normal(size=(2, 7, 12)).astype(np.float32)
    router = np.random.default_rng(2).normal(size=(12, 5)).astype(np.float32)
    probabilities = np.asarray(jax.nn.softmax(x @ router))
    order = np.argsort(-probabilities, axis=-1)[..., :2]
    likeliest = np.take_along_axis(probabilities, order, axis=-1)
    for normalizes in (True, False):
        routing = route(dataclasses.replace(config, router_normalizes=normalizes), x, router)
        np.testing.assert_array_equal(routing.chosen, order)
        total = likeliest.sum(-1, keepdims=True) if normalizes else 1
        np.testing.assert_allclose(routing.weights, likeliest / total, rtol=1e-5)


def test_equal_experts_are_one_mlp(tiny: ModelConfig, config: ModelConfig, tokens_BT: np.ndarray) -> None:
    one = dataclasses.replace(tiny, mlp_bias=False)
    params = init_params(jax.random.key(3), one)
    blocks = dict(params["blocks"]) | {"router": init_params(jax.random.key(4), config)["blocks"]["router"]}
    for name in ("mlp_up", "mlp_down"):
        kernel = blocks[name]["kernel"]
        blocks[name] = {"kernel": jnp.repeat(kernel[:, None], config.num_experts, axis=1)}
    got = forward(params | {"blocks": blocks}, config, tokens_BT)[0]
    np.testing.assert_allclose(got, forward(params, one, tokens_BT)[0], atol=2e-6)


def imbalance_of(probabilities: Any, chosen: Any, weights: Any) -> jax.Array:
    """Of a whole batch."""
    use = expert_use(jnp.asarray(chosen), probabilities.shape[-1], weights, jnp.sum(weights))
    return imbalance(probabilities, weights, use)


def test_imbalance_is_one_for_even_use_and_the_number_of_experts_for_one_alone() -> None:
    everywhere = jnp.full((2, 1, 5, 5), 0.2)
    chosen = (np.arange(5)[:, None] + np.arange(2)) % 5
    weights = jnp.ones((1, 5))
    even = imbalance_of(everywhere, jnp.broadcast_to(chosen, (2, 1, 5, 2)), weights)
    np.testing.assert_allclose(even, 1, rtol=1e-6)
    alone = imbalance_of(
        jax.nn.one_hot(jnp.full((2, 1, 5), 3), 5), jnp.full((2, 1, 5, 1), 3), jnp.array([[1, 1, 0, 0, 1.0]])
    )
    np.testing.assert_allclose(alone, 5, rtol=1e-6)
    assert imbalance_of(everywhere, jnp.broadcast_to(chosen, (2, 1, 5, 2)), jnp.zeros((1, 5))) == 0


def test_tokens_without_weight_do_not_pull_the_router() -> None:
    draw = np.random.default_rng(0)
    probabilities, chosen = draw.dirichlet(np.ones(5), (2, 3, 4)), draw.integers(0, 5, (2, 3, 4, 2))
    weights = np.ones((3, 4))
    weights[1:, 2:] = 0
    changed = probabilities.copy()
    changed[:, 1:, 2:] = changed[:, 1:, 2:, ::-1]
    np.testing.assert_allclose(
        *(imbalance_of(jnp.asarray(each), jnp.asarray(chosen), weights) for each in (probabilities, changed))
    )


def test_balance_is_in_the_gradient_and_not_in_the_loss(config: ModelConfig, params: Tree) -> None:
    batch = as_batch(WINDOW)

    def loss_and_slope(balance: float) -> tuple[float, np.ndarray]:
        changed = dataclasses.replace(config, router_balance=balance)
        total, slope = jax.value_and_grad(lambda p: next_token_loss(p, changed, batch, None)[0])(params)
        return float(total), np.asarray(slope["blocks"]["router"]["kernel"])

    def uneven(kernel: jax.Array) -> jax.Array:
        moved = params | {"blocks": params["blocks"] | {"router": {"kernel": kernel}}}
        routing = forward(moved, config, batch.tokens)[2].blocks.routing
        return imbalance_of(routing.probabilities, routing.chosen, batch.weights)

    (plain, without), (pulled, along) = loss_and_slope(0.0), loss_and_slope(3.0)
    assert plain == pulled
    np.testing.assert_allclose(plain, np.sum(token_nats(params, config, batch)), rtol=1e-6)
    wanted = batch.weights.sum() * jax.grad(uneven)(params["blocks"]["router"]["kernel"])
    np.testing.assert_allclose((along - without) / 3, wanted, atol=1e-3 * np.abs(wanted).max())
    assert np.abs(wanted).max() > 0


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_experts_are_trained(config: ModelConfig, optimizer: str) -> None:
    training = Config(
        model=config,
        optim=OptimConfig(optimizer=optimizer, learning_rate=1e-2),
        train=TrainConfig(steps=12, batch_size=3),
    )
    state, losses = init_state(training), []
    before = jax.tree.map(np.asarray, state["params"]["blocks"])
    for _ in range(12):
        state, metrics = train_step(training, state, as_batch(WINDOW))
        losses.append(float(metrics["loss_sum"]) / float(metrics["weight"]))
    assert losses[-1] < losses[0] - 0.3
    for name in ("router", "mlp_up", "mlp_down"):
        moved = np.abs(np.asarray(state["params"]["blocks"][name]["kernel"]) - before[name]["kernel"])
        assert np.all(moved.max(axis=(-2, -1)) > 0)


def test_work_is_counted_for_the_experts_that_a_token_takes(config: ModelConfig) -> None:
    kernels = abstract_params(config)["blocks"]
    one_expert = sum(kernels[name]["kernel"].size for name in ("mlp_up", "mlp_down")) // 5
    three = dataclasses.replace(config, experts_per_token=3)
    assert flops_per_token(three) - flops_per_token(config) == 6 * one_expert


def test_impossible_mixtures_are_refused() -> None:
    for change, message in (
        ({"experts_per_token": 6}, r"experts_per_token \(6\) must be from 1 to num_experts \(5\)"),
        ({"experts_per_token": 0}, r"experts_per_token \(0\) must be from 1"),
        ({"mlp_bias": True}, "experts have no biases"),
        ({"router_balance": -1}, "router_balance"),
    ):
        with pytest.raises(UserError, match=message):
            ModelConfig(**EXPERTS | change)
