"""The time of a run, in every line of its record, over all of its starts."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from llm_jax.base.json_lines import read_lines
from llm_jax.runs import record
from llm_jax.runs.record import RunRecord


@pytest.fixture
def start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[list[float], Callable[[int], RunRecord], Callable[[], list[Any]]]:
    """A clock, the record of a run from a step on, and the times that it holds."""
    now = [1000.0]
    monkeypatch.setattr(record, "time", SimpleNamespace(monotonic=lambda: now[0]))
    monkeypatch.setattr(record, "open_tensorboard", lambda *_: None, raising=False)
    times = lambda: [line.get("elapsed_seconds") for line in read_lines(tmp_path / "metrics.jsonl")]  # noqa: E731
    return now, lambda step: RunRecord(tmp_path, {}, step, pytest.fail), times


def test_a_run_that_goes_on_adds_to_the_time_that_it_took(start: Any) -> None:
    now, begin, times = start
    first = begin(0)
    for step in (1, 2, 3):
        now[0] += 2.5
        first.write(step, train_loss=1.0)
    assert times() == [2.5, 5.0, 7.5]
    now[0] += 5000
    second = begin(2)  # the last save
    now[0] += 1
    second.write(3, train_loss=1.0)
    assert times() == [2.5, 5.0, 6.0]
    begin(0).write(1, train_loss=1.0)
    assert times() == [0.0]


def test_a_run_whose_first_steps_have_no_times_gets_none(start: Any, tmp_path: Path) -> None:
    _, begin, times = start
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "train_loss": 2.0}\n')
    begin(1).write(2, train_loss=1.0)
    assert times() == [None, None]
