"""The live line's arithmetic: speed is that of training steps, time left is that of all that is done."""

import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import pytest

from llm_jax.config.run import Config, TrainConfig
from llm_jax.runs import progress
from llm_jax.runs.observer import Around
from llm_jax.tasks.language_modelling import LANGUAGE_MODELLING
from llm_jax.training import loop
from llm_jax.training.observers import Guard
from tests.support.observing import an_observer

TOKENS = 64  # of a step


class Clock:
    """What `time.perf_counter` says."""

    def __init__(self) -> None:
        self.now = 0.0

    def takes(self, seconds: float, result: Any = None) -> Callable[..., Any]:
        """A function that takes so long."""

        def call(*_: Any, **__: Any) -> Any:
            self.now += seconds
            return result

        return call


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(progress.time, "perf_counter", lambda: clock.now)
    return clock


def a_line(steps: int) -> progress.LiveLine:
    return progress.LiveLine(
        steps=steps,
        start=0,
        tokens_per_step=TOKENS,
        flops_per_token=6,
        peak_flops=1e4,
        guard=Guard(pytest.fail),
    )


def test_the_speed_is_that_of_whole_calls_and_what_is_aside_does_not_count(clock: Clock) -> None:
    live = a_line(100)

    def reach(step: int, after: float) -> float:
        clock.now += after
        speed = live.reach(step, 1.0)
        assert speed["mfu"] == pytest.approx(speed["tokens_per_second"] * 6e-4, nan_ok=True)
        return speed["tokens_per_second"]

    assert math.isnan(reach(10, 100))  # The first call may have compiled.
    assert reach(20, 2) == TOKENS * 10 / 2
    assert reach(30, 6) == TOKENS * 20 / 8
    with live.aside():
        clock.now += 1000
    assert reach(40, 2) == TOKENS * 30 / 10
    assert reach(50, 5) == TOKENS * 40 / 15
    # After a roll-back the steps are counted anew.
    assert math.isnan(reach(45, 1000))
    assert reach(50, 1) == TOKENS * 5
    live.close()


def test_the_time_left_has_evaluations_and_saves_in_it(clock: Clock) -> None:
    live = a_line(100)
    for step in range(1, 51):
        clock.now += 1
        live.reach(step, 1.0)
        with live.aside():
            clock.now += 99
    assert live._progress.tasks[0].time_remaining == pytest.approx(50 * 100, rel=0.05)
    live.close()


class Score(NamedTuple):
    """An evaluation's numbers."""

    loss: float = 1.0
    standard_error: float = 0.1
    perplexity: float = 2.7
    bits_per_byte: float = 1.4


def test_a_runs_speed_leaves_out_its_saves_and_evaluations(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    train = TrainConfig(
        steps=24, steps_per_dispatch=2, save_interval=4, eval_interval=12, log_interval=2, sample_tokens=0
    )
    config, lines = Config(train=train), []

    def run_steps(_: Any, state: Any, batches: list, measured: list, setup: Any) -> Any:
        zeros = np.zeros(len(batches))
        return state, {"loss_sum": zeros, "weight": zeros + 1, "skipped": zeros}

    def wait_for(lists: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        clock.now += len(lists["weight"])  # A step takes a second.
        return lists

    monkeypatch.setattr(loop, "run_steps", run_steps)
    monkeypatch.setattr(loop.jax, "device_get", wait_for)
    material: Any = SimpleNamespace(
        config=config,
        baselines=dict,
        batch_at=lambda _: None,
        evaluate=clock.takes(50, Score()._asdict()),
        task=LANGUAGE_MODELLING,
        samples=False,
    )
    record: Any = SimpleNamespace(
        write=clock.takes(3), add_step=lambda step, _, speed: lines.append((step, speed))
    )
    checkpoints: Any = SimpleNamespace(save=clock.takes(100), require_saved=lambda: None)
    live = a_line(train.steps)
    around: Any = Around(record, SimpleNamespace(), lambda *_: None, str, None)
    monkeypatch.setattr("llm_jax.runs.observer.LiveLine", lambda **_: live)
    callbacks = an_observer(material, around).callbacks()
    state = {"counters": {"step": 0, "batch": 0}, "params": {}}
    loop.train(config, checkpoints, state, callbacks)
    live.close()
    speeds = {step: speed["tokens_per_second"] for step, speed in lines if speed}
    assert math.isnan(speeds.pop(2))
    assert speeds == dict.fromkeys(range(4, 25, 2), TOKENS)
    assert clock.now == 24 + 6 * 100 + 2 * 53
