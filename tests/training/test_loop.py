"""The training loop under faults: kills, steps that are not finite, saves that fail, observers that fail."""

from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from llm_jax.base.batch import Batch
from llm_jax.base.errors import CheckpointError, DivergedError
from llm_jax.checkpoints.reader import read_state
from llm_jax.checkpoints.writer import Checkpoints
from llm_jax.config.model import ModelConfig
from llm_jax.config.run import Config, DataConfig, OptimConfig, TrainConfig
from llm_jax.proofs.resume import compare_runs, short_run
from llm_jax.training import loop


@pytest.mark.parametrize("accumulation_steps", [1, 2])
def test_a_killed_run_resumed_is_bitwise_the_straight_run(
    tmp_path: Path, prose: Path, accumulation_steps: int
) -> None:
    config = Config(
        model=ModelConfig(context_length=8, d_model=16, num_layers=2, num_heads=2),
        data=DataConfig(corpus=str(prose), prepared=tmp_path / "prepared"),
        optim=OptimConfig(warmup_steps=5, schedule="cosine", clip_norm=1.0, ema_decay=0.9),
    )
    found = compare_runs(short_run(config, 24, accumulation_steps), tmp_path, kill_after=13)
    assert found["differing_leaves"] == found["differing_losses"] == []
    assert found["leaves"] > 40
    assert found["losses"] == 24
    assert 12 <= found["resumed_at"] < 24


def a_loop(
    tmp_path: Path, tiny: ModelConfig, bad_batches: set[int], **train_options: Any
) -> tuple[Any, list]:
    """Runs the loop on made-up batches, of which some have infinite weights; gives its state and what it was
    fed.
    """
    settings = {"steps": 12, "save_interval": 2, "eval_interval": 100, "max_skipped": 2} | train_options
    config = Config(model=tiny, train=TrainConfig(batch_size=2, log_interval=1, **settings))
    fed: list[int] = []

    def batch_at(index: int) -> Batch:
        fed.append(index)
        window = np.random.default_rng(index).integers(0, 37, (2, 13)).astype(np.int32)
        weight = np.inf if index in bad_batches else 1
        return Batch(window[:, :-1], window[:, 1:], np.full((2, 12), weight, np.float32))

    warnings: list[str] = []
    around = loop.Callbacks(
        batch_at, lambda _: {"validation_loss": 1.0}, lambda *_: None, lambda *_: None, warnings.append
    )
    with Checkpoints(tmp_path, keep=2, about={}, report=warnings.append) as checkpoints:
        state, _ = loop.train(config, checkpoints, loop.start_state(config, checkpoints), around)
    return state, [fed, warnings]


def test_a_few_steps_that_are_not_finite_are_left_out(tmp_path: Path, tiny: ModelConfig) -> None:
    state, (fed, warnings) = a_loop(tmp_path, tiny, {3, 4})
    assert fed == list(range(12))
    assert not warnings
    assert int(state["opt_state"][0].count) == 10
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(state["params"]))


def test_too_many_roll_back_once_and_leave_the_data_out(tmp_path: Path, tiny: ModelConfig) -> None:
    state, (fed, warnings) = a_loop(tmp_path, tiny, {5, 6, 7})
    assert "rolled back" in warnings[0]
    assert len(fed) == len(set(fed))  # no batch came twice
    assert int(state["counters"]["step"]) == 12
    assert int(state["counters"]["rollbacks"]) == 1
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(state))


def test_too_many_after_a_roll_back_end_with_5(tmp_path: Path, tiny: ModelConfig) -> None:
    with pytest.raises(DivergedError, match="max_skipped") as stop:
        a_loop(tmp_path, tiny, set(range(5, 100)))
    assert stop.value.exit_status == 5
    saved = read_state(tmp_path)
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(saved["params"]))


def test_a_last_save_that_fails_is_not_called_success(
    tmp_path: Path, tiny: ModelConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    from llm_jax.checkpoints import step_folder

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(step_folder.ocp, "save_checkpointables", full)
    with pytest.raises(CheckpointError, match="No space left"):
        a_loop(tmp_path, tiny, set())
