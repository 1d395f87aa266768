"""Laws of loss, optimizer and train step."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from llm_jax.base.batch import Batch
from llm_jax.base.tree import Tree, flatten
from llm_jax.config.model import ModelConfig
from llm_jax.config.run import Config, OptimConfig, TrainConfig
from llm_jax.model.decoder import forward, init_params
from llm_jax.training.head import cross_entropy, head_nats
from llm_jax.training.losses import next_token_loss, token_nats, weighted_sum
from llm_jax.training.state import evaluated_params, init_state
from llm_jax.training.step import part_norms, run_steps, step_nats, train_step, train_steps

pytestmark = pytest.mark.compiles


def a_config(tiny: ModelConfig, **train: Any) -> Config:
    settings = {"steps": 10, "batch_size": 4} | train
    return Config(model=tiny, optim=OptimConfig(learning_rate=1e-2), train=TrainConfig(**settings))


def a_batch(config: Config, seed: int = 0) -> Batch:
    shape = (config.train.batch_size, config.model.context_length + 1)
    window = np.random.default_rng(seed).integers(0, config.model.vocab_size, shape).astype(np.int32)
    return Batch(window[:, :-1], window[:, 1:], np.ones(window[:, 1:].shape, np.float32))


def leaves_equal(a: Any, b: Any) -> bool:
    return all(jnp.array_equal(x, y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


def test_loss_is_the_log_of_the_vocabulary_for_equal_logits() -> None:
    total, weight = weighted_sum(
        cross_entropy(jnp.zeros((2, 3, 7)), jnp.zeros((2, 3), jnp.int32)), jnp.ones((2, 3))
    )
    np.testing.assert_allclose(total / weight, np.log(7), rtol=1e-6)


def test_masked_targets_neither_count_nor_poison_the_loss() -> None:
    logits = jnp.array([[[0.0, 1.0], [jnp.nan, jnp.nan]]])
    targets, weights = jnp.array([[1, 0]]), jnp.array([[1.0, 0.0]])
    nats = cross_entropy(logits, targets)
    total, weight = weighted_sum(nats, weights)
    np.testing.assert_allclose(total, np.log1p(np.exp(-1)), rtol=1e-6)
    assert weight == 1
    assert weighted_sum(nats, jnp.zeros((1, 2))) == (0, 0)


def test_ids_that_share_a_row_score_as_if_each_had_a_copy_of_it(tiny: ModelConfig) -> None:
    shared = dataclasses.replace(tiny, shared_ids=9, spare_embedding_rows=0, dropout=0.0)
    alone = dataclasses.replace(shared, shared_ids=0)
    params = init_params(jax.random.key(3), shared)
    copies = np.minimum(np.arange(37), shared.num_rows - 1)
    full = params | {
        "token_embedding": {"embedding": params["token_embedding"]["embedding"][copies]},
        "head": {"kernel": params["head"]["kernel"][:, copies], "bias": params["head"]["bias"][copies]},
    }
    batch = a_batch(a_config(tiny))
    np.testing.assert_allclose(
        token_nats(params, shared, batch), token_nats(full, alone, batch), rtol=1e-5, atol=1e-5
    )
    ours, theirs = (forward(p, c, batch.tokens)[0] for p, c in ((params, shared), (full, alone)))
    np.testing.assert_allclose(ours, theirs, atol=1e-6)
    slope, full_slope = (
        jax.grad(lambda p, c=c: next_token_loss(p, c, batch, None)[0])(p)["head"]["bias"]
        for p, c in ((params, shared), (full, alone))
    )
    np.testing.assert_allclose(slope, np.bincount(copies, weights=full_slope), atol=1e-4)


def test_a_batch_without_any_target_leaves_finite_parameters(tiny: ModelConfig) -> None:
    config = a_config(dataclasses.replace(tiny, dropout=0.0))
    batch = a_batch(config)._replace(weights=np.zeros((4, tiny.context_length), np.float32))
    state, metrics = train_step(config, init_state(config), batch)
    assert metrics["loss_sum"] == 0
    assert metrics["skipped"] == 0
    assert all(jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(state["params"]))


@pytest.mark.parametrize("parts", [1, 2, 4])
def test_step_nats_are_the_terms_of_the_steps_loss_under_its_dropout(tiny: ModelConfig, parts: int) -> None:
    config = a_config(dataclasses.replace(tiny, dropout=0.3), accumulation_steps=parts)
    state, _ = train_step(config, init_state(config), a_batch(config))
    batch = a_batch(config, 1)
    nats, dry = step_nats(config, state, batch), token_nats(state["params"], config.model, batch)
    _, metrics = train_step(config, state, batch)
    np.testing.assert_allclose(jnp.sum(nats), metrics["loss_sum"], rtol=1e-6)
    assert abs(jnp.sum(dry) - metrics["loss_sum"]) > 1e-3


def test_a_run_compiles_one_program_however_many_steps_a_call_does(tiny: ModelConfig) -> None:
    config = a_config(tiny, seed=77)
    state = init_state(config)
    before = train_steps._cache_size()
    for count in (1, 3, config.train.steps_per_dispatch, 2):
        batches = [a_batch(config, step) for step in range(count)]
        state, _ = run_steps(config, state, batches, [step == 1 for step in range(count)])
    assert train_steps._cache_size() == before + 1


def test_steps_in_one_call_are_the_steps_one_by_one(tiny: ModelConfig) -> None:
    config = dataclasses.replace(a_config(tiny), optim=OptimConfig(ema_decay=0.9, clip_norm=1.0))
    batches = [a_batch(config, step) for step in range(5)]
    batches[2] = batches[2]._replace(weights=batches[2].weights * np.inf)  # a step that must change nothing
    measured = [False, True, True, True, False]
    together, lists = run_steps(config, init_state(config), batches, measured)
    alone, rows = init_state(config), []
    for batch, look in zip(batches, measured, strict=True):
        alone, metrics = train_step(config, alone, batch, measured=look)
        rows.append(metrics)
    assert leaves_equal(together, alone)
    stacked = jax.tree.map(lambda *row: np.stack(row), *rows)
    for (path, ours), (_, wanted) in zip(flatten(lists), flatten(stacked), strict=True):
        np.testing.assert_array_equal(ours[:5], wanted, err_msg=path)
    seen = np.isfinite(lists["update_norm"][:5])
    np.testing.assert_array_equal(seen, [False, True, False, True, False])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("bias", "shared"), [(True, 0), (False, 0), (True, 4), (False, 4)])
def test_gradient_through_the_head_is_that_of_differentiating_each_step(
    dtype: str, bias: bool, shared: int
) -> None:
    with jax.enable_x64(True):
        generator = np.random.default_rng(5)
        hidden, kernel, offset = (
            jnp.asarray(generator.normal(size=shape), dtype) for shape in ((11, 6), (6, 23), (23,))
        )
        targets = jnp.asarray(generator.integers(0, 22 + max(1, shared), 11), jnp.int32)
        weights = jnp.asarray(generator.uniform(size=11), dtype)

        def reference(hidden: Any, kernel: Any, offset: Any) -> jax.Array:
            scores = hidden @ kernel + (offset[None] if bias else 0)
            return jnp.sum(weights * cross_entropy(scores, targets, shared))

        def ours(hidden: Any, kernel: Any, offset: Any) -> jax.Array:
            return jnp.sum(weights * head_nats(hidden, kernel, offset if bias else None, targets, shared))

        wanted, got = (
            jax.value_and_grad(f, argnums=(0, 1, 2))(hidden, kernel, offset) for f in (reference, ours)
        )
        tolerance = 1e-5 if dtype == "float32" else 1e-13
        for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(wanted), strict=True):
            assert a.dtype == dtype
            np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)


def test_train_step_donates_its_state(tiny: ModelConfig) -> None:
    config = a_config(tiny)
    state = init_state(config)
    leaf = state["params"]["head"]["kernel"]
    train_step(config, state, a_batch(config))
    assert leaf.is_deleted()


def test_step_is_a_pure_function_of_state_and_batch(tiny: ModelConfig) -> None:
    config = a_config(tiny)
    one, two = (train_step(config, init_state(config), a_batch(config)) for _ in range(2))
    assert leaves_equal(one, two)
    other = a_config(tiny, seed=2)
    assert not leaves_equal(
        train_step(other, init_state(config), a_batch(config))[0], one[0]
    )  # other dropout


@pytest.mark.parametrize("poison", [np.inf, 1e38])
def test_a_step_that_is_not_finite_changes_nothing_but_the_counters(tiny: ModelConfig, poison: float) -> None:
    config = dataclasses.replace(a_config(tiny), optim=OptimConfig(ema_decay=0.9, clip_norm=1.0))
    state, _ = train_step(config, init_state(config), a_batch(config))
    kept = jax.device_get({name: state[name] for name in ("params", "opt_state", "ema")})
    bad = a_batch(config)._replace(weights=np.full((4, tiny.context_length), poison, np.float32))
    state, metrics = train_step(config, state, bad)
    assert leaves_equal({name: state[name] for name in kept}, kept)
    assert (int(state["counters"]["step"]), int(metrics["skipped"])) == (2, 1)
    state, metrics = train_step(config, state, a_batch(config))
    assert metrics["skipped"] == 0
    assert not leaves_equal(state["params"], kept["params"])


def test_a_model_learns_a_batch_by_heart(tiny: ModelConfig) -> None:
    config = a_config(dataclasses.replace(tiny, dropout=0.0), steps=150)
    state, losses = init_state(config), []
    for _ in range(150):
        state, metrics = train_step(config, state, a_batch(config))
        losses.append(float(metrics["loss_sum"] / metrics["weight"]))
    assert losses[0] > np.log(37) * 0.9
    assert losses[-1] < 0.5


def test_token_nats_are_the_terms_of_the_loss(tiny: ModelConfig, tiny_params: Tree) -> None:
    batch = a_batch(a_config(tiny))
    nats_BT = token_nats(tiny_params, tiny, batch)
    config = a_config(dataclasses.replace(tiny, dropout=0.0))
    state = init_state(config) | {"params": jax.tree.map(jnp.copy, tiny_params)}
    _, metrics = train_step(config, state, batch)
    np.testing.assert_allclose(nats_BT.sum(), metrics["loss_sum"], rtol=1e-5)


def test_average_of_parameters_follows_its_definition(tiny: ModelConfig) -> None:
    config = dataclasses.replace(a_config(tiny), optim=OptimConfig(ema_decay=0.15))
    state = init_state(config)
    expected = jax.device_get(state["params"])
    for step in range(3):
        state, _ = train_step(config, state, a_batch(config, step))
        expected = optax.incremental_update(
            state["params"], expected, 1 - min(0.15, (1 + step) / (10 + step))
        )
    for (path, leaf), (_, wanted) in zip(
        flatten(evaluated_params(tiny, state)), flatten(expected), strict=True
    ):
        np.testing.assert_allclose(leaf, wanted, atol=1e-6, err_msg=path)


def test_norms_by_part_and_layer_are_those_of_the_gradient(tiny: ModelConfig) -> None:
    config = a_config(dataclasses.replace(tiny, dropout=0.0))
    state, batch = init_state(config), a_batch(config)
    grads = jax.grad(lambda p: next_token_loss(p, config.model, batch, None)[0])(state["params"])
    norms, size = part_norms(grads), batch.targets.size
    assert norms.keys() == state["params"].keys()
    for layer in range(tiny.num_layers):
        block = jax.tree.map(lambda leaf, layer=layer: leaf[layer], grads["blocks"])
        np.testing.assert_allclose(norms["blocks"][layer], optax.tree.norm(block), rtol=1e-6)
    _, metrics = train_step(config, state, batch)
    np.testing.assert_allclose(metrics["grad_norm"], optax.tree.norm(grads) / size, rtol=1e-5)
    np.testing.assert_allclose(
        metrics["grad_norms"]["head"], optax.tree.norm(grads["head"]) / size, rtol=1e-5
    )
    np.testing.assert_allclose(
        metrics["update_norm"] ** 2,
        sum(jnp.sum(norm**2) for norm in metrics["update_norms"].values()),
        rtol=1e-5,
    )
