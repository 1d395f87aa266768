"""Where arrays lie is handed in: batches over several devices train as on one; checkpoints go anywhere."""

import dataclasses
from pathlib import Path

import jax
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from llm_jax.base.batch import Batch
from llm_jax.base.devices import Placement, on_one_device
from llm_jax.checkpoints.writer import Checkpoints
from llm_jax.config.model import ModelConfig
from llm_jax.config.run import Config, OptimConfig, TrainConfig
from llm_jax.training.loop import start_state
from llm_jax.training.state import Setup, abstract_state
from llm_jax.training.step import lower_steps, run_steps

pytestmark = pytest.mark.compiles

DEVICES, STEPS = 8, 20


def over_devices() -> Placement:
    mesh = jax.make_mesh((DEVICES,), ("data",), axis_types=(AxisType.Auto,))
    return Placement(NamedSharding(mesh, PartitionSpec()), NamedSharding(mesh, PartitionSpec(None, "data")))


def batches(config: Config) -> list[Batch]:
    shape = (STEPS, config.train.batch_size, config.model.context_length + 1)
    windows = np.random.default_rng(0).integers(0, config.model.vocab_size, shape).astype(np.int32)
    ones = np.ones((shape[1], shape[2] - 1), np.float32)
    return [Batch(window[:, :-1], window[:, 1:], ones) for window in windows]


def test_batches_over_eight_devices_train_as_on_one_and_the_checkpoint_restores_on_one(
    tmp_path: Path,
) -> None:
    """The tutorial's step, with its dropout, which goes by a row's number in the whole batch. Adam makes
    steps of what is only rounding, where gradients are zero; eps keeps those below it small.
    """
    config = Config(
        model=ModelConfig(vocab_size=500),
        optim=OptimConfig(ema_decay=0.99, eps=1e-6),
        train=TrainConfig(batch_size=DEVICES, steps=STEPS),
    )
    assert len(jax.devices()) == DEVICES
    setups = {"one": Setup(placement=on_one_device()), "eight": Setup(placement=over_devices())}
    losses, states = {}, {}
    for name, setup in setups.items():
        with Checkpoints(tmp_path / name, keep=2, about={}) as checkpoints:
            state = start_state(config, checkpoints, setup=setup)
            found = []
            for first in range(0, STEPS, 10):
                each = batches(config)[first : first + 10]
                state, metrics = run_steps(config, state, each, [True] * 10, setup)
                found.append(np.asarray(metrics["loss_sum"] / metrics["weight"]))
            losses[name], states[name] = np.concatenate(found), state
            checkpoints.save(STEPS, state, metrics={}, score=None)
    assert len(states["eight"]["params"]["head"]["kernel"].sharding.device_set) == DEVICES
    np.testing.assert_allclose(losses["eight"], losses["one"], rtol=1e-6)

    with Checkpoints(tmp_path / "eight", keep=2, about={}) as checkpoints:
        restored = checkpoints.restore(abstract_state(config, setups["one"]))
    assert restored is not None
    for saved, back in zip(jax.tree.leaves(states["eight"]), jax.tree.leaves(restored.state), strict=True):
        assert len(back.sharding.device_set) == 1
        assert np.asarray(saved).tobytes() == np.asarray(back).tobytes()


def test_a_program_that_was_lowered_for_a_placement_splits_its_batches(tiny: ModelConfig) -> None:
    model = dataclasses.replace(tiny, dropout=0.0)
    config = Config(model=model, train=TrainConfig(batch_size=DEVICES, steps=STEPS))
    text = lower_steps(config, Setup(placement=over_devices())).compile().as_text() or ""
    assert "all-reduce" in text
    assert "all-reduce" not in (
        lower_steps(config, Setup(placement=on_one_device())).compile().as_text() or ""
    )
