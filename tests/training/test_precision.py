"""What adds up is float32 whatever type a model's parameters have: such a model trains as in float32."""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from llm_jax.base.batch import Batch
from llm_jax.base.errors import CheckpointError
from llm_jax.base.tree import State
from llm_jax.checkpoints.reader import read_params
from llm_jax.checkpoints.writer import Checkpoints
from llm_jax.config.model import ModelConfig
from llm_jax.config.run import Config, OptimConfig, TrainConfig
from llm_jax.model.decoder import init_params
from llm_jax.training.losses import next_token_loss
from llm_jax.training.precision import rounded
from llm_jax.training.state import abstract_state, evaluated_params, init_state
from llm_jax.training.step import run_steps, step_nats, train_step
from tests.training.test_training import a_batch, leaves_equal

pytestmark = pytest.mark.compiles
_STEPS, _RATE, _DECAY = 40, 1e-4, 0.1


def a_config(
    tiny: ModelConfig, param_dtype: str = "bfloat16", optimizer: str = "adamw", parts: int = 1
) -> Config:
    model = dataclasses.replace(tiny, num_layers=2, param_dtype=param_dtype, dropout=0.0)
    return Config(
        model=model,
        optim=OptimConfig(
            optimizer=optimizer, learning_rate=_RATE, ema_decay=0.999, weight_decay=_DECAY, clip_norm=1.0
        ),
        train=TrainConfig(steps=_STEPS, batch_size=4, accumulation_steps=parts),
    )


def without_targets(config: Config) -> Batch:
    """A batch whose gradient is zero."""
    return a_batch(config)._replace(weights=np.zeros((4, config.model.context_length), np.float32))


def after(config: Config, steps: int, state: State | None = None) -> State:
    """The state so many steps later, each on a batch of its own."""
    state = init_state(config) if state is None else state
    first, most = int(state["counters"]["step"]), config.train.steps_per_dispatch
    for start in range(first, first + steps, most):
        count = min(most, first + steps - start)
        batches = [a_batch(config, index) for index in range(start, start + count)]
        state, _ = run_steps(config, state, batches, [False] * count)
    return state


def types(tree: Any) -> set[str]:
    return {str(leaf.dtype) for leaf in jax.tree.leaves(tree)}


def joined(tree: Any) -> np.ndarray:
    return np.concatenate([np.ravel(np.asarray(leaf, np.float64)) for leaf in jax.tree.leaves(tree)])


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_all_that_a_run_keeps_is_float32_or_a_count(tiny: ModelConfig, optimizer: str, dtype: str) -> None:
    config = a_config(dataclasses.replace(tiny, dtype=dtype), optimizer=optimizer)
    state = abstract_state(config)
    assert {name: types(part) for name, part in state.items() if name != "opt_state"} == {
        "params": {"float32"},
        "ema": {"float32"},
        "counters": {"int32"},
    }
    assert types(state["opt_state"]) == {"float32", "int32"}
    later, metrics = jax.eval_shape(lambda state: train_step(config, state, a_batch(config)), state)
    assert jax.tree.map(lambda leaf: leaf.dtype, later) == jax.tree.map(lambda leaf: leaf.dtype, state)
    assert types(metrics) == {"float32", "int32"}


@pytest.mark.parametrize(("optimizer", "parts"), [("adamw", 1), ("muon", 2)])
def test_steps_with_bfloat16_parameters_stay_near_those_in_float32(
    tiny: ModelConfig, optimizer: str, parts: int
) -> None:
    configs = [a_config(tiny, kind, optimizer, parts) for kind in ("float32", "bfloat16")]
    starts = [jax.device_get(init_state(config)["params"]) for config in configs]
    assert leaves_equal(*starts)  # the same weights are drawn in either type
    wide, narrow = (after(config, _STEPS) for config in configs)
    for part in ("params", "ema"):
        wide_move, narrow_move = (joined(end[part]) - joined(starts[0]) for end in (wide, narrow))
        assert np.mean(narrow_move != 0) > 0.99 * np.mean(wide_move != 0), part
        assert np.linalg.norm(narrow_move - wide_move) < 0.1 * np.linalg.norm(wide_move), part
    moments = [joined(end["opt_state"]) for end in (wide, narrow)]
    assert np.linalg.norm(moments[1] - moments[0]) < 0.05 * np.linalg.norm(moments[0])


def test_a_second_moment_falls_by_its_decay(tiny: ModelConfig) -> None:
    config = a_config(tiny)
    state = after(config, 10)
    before = joined(state["opt_state"][0].nu)
    state, _ = run_steps(config, state, [without_targets(config)] * 10, [False] * 10)
    np.testing.assert_allclose(joined(state["opt_state"][0].nu), before * 0.999**10, rtol=1e-5)


def test_a_decay_of_weights_below_a_step_of_bfloat16_adds_up(tiny: ModelConfig) -> None:
    config = a_config(tiny)
    state = init_state(config)
    start = joined(state["params"])
    state, _ = run_steps(config, state, [without_targets(config)] * 10, [False] * 10)
    wanted = start * ((1 - _RATE * _DECAY) ** 10 - 1)
    np.testing.assert_allclose(
        joined(state["params"]) - start, wanted, rtol=0.02, atol=1e-6 * abs(start).max()
    )


def test_a_step_reads_the_parameters_as_they_are_evaluated(tiny: ModelConfig) -> None:
    config = a_config(tiny)
    state, batch = after(config, 3), a_batch(config, 9)
    read = rounded(state["params"], config.model)
    assert types(read) == types(evaluated_params(config.model, state)) == {"bfloat16"}
    exact = state | {"params": jax.tree.map(lambda leaf: leaf.astype(jnp.float32), read)}
    assert not leaves_equal(exact["params"], state["params"])
    np.testing.assert_array_equal(*(step_nats(config, one, batch) for one in (state, exact)))
    copies = [jax.tree.map(jnp.copy, one) for one in (state, exact)]
    np.testing.assert_array_equal(*(train_step(config, one, batch)[1]["loss_sum"] for one in copies))


def test_float32_parameters_are_read_as_they_are(tiny: ModelConfig) -> None:
    params = init_state(a_config(tiny, "float32"))["params"]
    read = rounded(params, tiny)
    assert all(a is b for a, b in zip(jax.tree.leaves(read), jax.tree.leaves(params), strict=True))


def test_a_resumed_run_is_the_run_to_the_bit(tmp_path: Path, tiny: ModelConfig) -> None:
    config = a_config(tiny)
    with Checkpoints(tmp_path, keep=2, about={}) as checkpoints:
        checkpoints.save(3, after(config, 3), metrics={}, score=None)
        restored = checkpoints.restore(abstract_state(config))
    assert restored is not None
    assert leaves_equal(after(config, 4, restored.state), after(config, 7))


def test_parameters_come_out_of_a_run_in_the_models_own_type(tmp_path: Path, tiny: ModelConfig) -> None:
    config = a_config(tiny)
    state = after(config, 3)
    with Checkpoints(tmp_path, keep=2, about={}) as checkpoints:
        checkpoints.save(3, state, metrics={}, score=None)
    wanted = evaluated_params(config.model, state)
    got, _ = read_params(tmp_path, jax.eval_shape(lambda: wanted), name="ema")
    assert types(got) == {"bfloat16"}
    assert leaves_equal(got, wanted)


@pytest.mark.parametrize("kind", ["dtype", "param_dtype"])
def test_the_gradient_of_a_frequent_ids_row_grows_with_every_place(tiny: ModelConfig, kind: str) -> None:
    wide = dataclasses.replace(tiny, num_layers=1, dropout=0.0, positions="learned")
    everywhere = np.full((100, tiny.context_length), 5, np.int32)
    batch = Batch(everywhere, everywhere + 1, np.ones(everywhere.shape, np.float32))

    def slopes(model: ModelConfig) -> list[np.ndarray]:
        params = rounded(init_params(jax.random.key(0), wide), model)
        found = jax.jit(jax.grad(lambda params: next_token_loss(params, model, batch, None)[0]))(params)
        return [np.asarray(found[f"{of}_embedding"]["embedding"], np.float32) for of in ("token", "position")]

    narrowed = dataclasses.replace(wide, **{kind: "bfloat16"})
    for narrow, exact in zip(slopes(narrowed), slopes(wide), strict=True):
        assert np.linalg.norm(narrow - exact) < 0.05 * np.linalg.norm(exact)


def test_a_run_that_kept_bfloat16_is_not_trained_on(tmp_path: Path, tiny: ModelConfig) -> None:
    config = a_config(tiny)
    narrow = lambda leaf: leaf.astype(jnp.bfloat16) if leaf.dtype == jnp.float32 else leaf  # noqa: E731
    with Checkpoints(tmp_path, keep=2, about={}) as checkpoints:
        checkpoints.save(3, jax.tree.map(narrow, init_state(config)), metrics={}, score=None)
        with pytest.raises(CheckpointError, match=r"is bfloat16 .* must be float32") as refusal:
            checkpoints.restore(abstract_state(config))
    assert "train.init_from starts a new run from its parameters" in str(refusal.value)
