"""What is promised of the compiled train step, by counting: its size does not grow with depth, and a run
compiles it once.
"""

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import jax
import numpy as np
import pytest

from llm_jax.base.batch import Batch
from llm_jax.base.devices import on_one_device
from llm_jax.checkpoints.writer import Checkpoints
from llm_jax.config.model import ModelConfig
from llm_jax.config.run import Config, OptimConfig, TrainConfig
from llm_jax.training import loop
from llm_jax.training.state import Setup
from llm_jax.training.step import lower_steps

pytestmark = pytest.mark.compiles

SETUP = Setup(placement=on_one_device())


@contextmanager
def compiled_programs() -> Iterator[list[str]]:
    """The names of the programs that are compiled, or fetched from the cache, within the block."""
    names: list[str] = []

    def note(event: str, _: float, **facts: str | int) -> None:
        if event == "/jax/core/compile/backend_compile_duration":
            names.append(str(facts["fun_name"]))

    jax.monitoring.register_event_duration_secs_listener(note)
    try:
        yield names
    finally:
        jax.monitoring.unregister_event_duration_listener(note)


@pytest.mark.parametrize("remat", [False, True])
def test_the_scanned_train_step_does_not_grow_with_depth(tiny: ModelConfig, remat: bool) -> None:
    def size(**switches: object) -> int:
        model = dataclasses.replace(tiny, remat=remat, **switches)
        optim = OptimConfig(clip_norm=1.0, ema_decay=0.9, weight_decay=0.1, decay="matrices")
        train = TrainConfig(batch_size=4, accumulation_steps=2)
        return lower_steps(Config(model=model, optim=optim, train=train)).as_text().count("\n")

    assert size(num_layers=9) == size(num_layers=3)
    assert size(num_layers=9, layers="unroll") > 2 * size(num_layers=3, layers="unroll")


@pytest.mark.parametrize("schedule", ["constant", "cosine", "wsd"])
def test_the_length_of_a_run_is_no_part_of_its_program(tiny: ModelConfig, schedule: str) -> None:
    def program(steps: int, warmup_steps: int) -> str:
        optim = OptimConfig(schedule=schedule, warmup_steps=warmup_steps)
        return lower_steps(Config(model=tiny, optim=optim, train=TrainConfig(steps=steps))).as_text()

    assert program(10, 0) == program(5000, 100)


def run_to(steps_done: int, config: Config, folder: Path, bad: int | None = None) -> None:
    """Trains in the loop until its end, or until a signal's exception after `steps_done` steps."""

    def batch_at(index: int) -> Batch:
        window = np.random.default_rng(index).integers(0, 37, (2, 13)).astype(np.int32)
        weight = np.inf if bad is not None and bad <= index < bad + 3 else 1
        return Batch(window[:, :-1], window[:, 1:], np.full((2, 12), weight, np.float32))

    def on_steps(steps: range, _: list[dict]) -> None:
        if steps_done in steps:
            raise KeyboardInterrupt

    around = loop.Callbacks(
        batch_at, lambda _: {"validation_loss": 1.0}, on_steps, lambda *_: None, lambda *_: None
    )
    with Checkpoints(folder, keep=2, about={}) as checkpoints:
        state = loop.start_state(config, checkpoints, setup=SETUP)
        loop.train(config, checkpoints, state, around, SETUP)


def a_run(tiny: ModelConfig, steps: int) -> Config:
    """Five steps a call at most, and pauses that cut calls short."""
    train = TrainConfig(
        steps=steps,
        batch_size=2,
        steps_per_dispatch=5,
        eval_interval=7,
        save_interval=6,
        log_interval=1,
        max_skipped=2,
    )
    return Config(model=tiny, train=train)


def test_a_run_compiles_its_train_step_once_a_resume_and_partial_calls_included(
    tmp_path: Path, tiny: ModelConfig
) -> None:
    config = a_run(tiny, 23)
    with compiled_programs() as names:
        lower_steps(config, SETUP).compile()
        with pytest.raises(KeyboardInterrupt):
            run_to(13, config, tmp_path)
        run_to(1000, config, tmp_path)
    assert names.count("jit(train_steps)") == 1


def test_a_roll_back_compiles_nothing_anew(tmp_path: Path, tiny: ModelConfig) -> None:
    config = a_run(tiny, 22)
    with compiled_programs() as names:
        run_to(1000, config, tmp_path, bad=12)
    assert names.count("jit(train_steps)") == 1
