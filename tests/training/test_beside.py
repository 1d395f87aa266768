"""What is called beside a run can neither end it nor keep it waiting."""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llm_jax.base.json_lines import read_lines
from llm_jax.runs.record import RunRecord
from llm_jax.training import observers
from llm_jax.training.observers import Beside


def test_calls_are_done_in_their_order_and_all_of_them_by_the_end() -> None:
    done: list[int] = []
    beside = Beside("it", pytest.fail)
    for number in range(100):
        beside(lambda number=number: done.append(number))
    beside.close()
    assert done == list(range(100))


@pytest.mark.parametrize("error", [ValueError("no"), SystemExit(3), KeyboardInterrupt()])
def test_a_call_that_fails_is_one_warning_and_the_next_is_done(error: BaseException) -> None:
    warnings: list[str] = []
    done: list[int] = []

    def fail() -> None:
        raise error

    beside = Beside("it", warnings.append)
    for call in (fail, fail, lambda: done.append(1)):
        beside(call)
    beside.close()
    assert done == [1]
    assert len(warnings) == 1
    assert warnings[0].startswith("it failed: ")


def test_one_that_has_nothing_to_do_is_not_left_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(observers, "_PATIENCE", 0)
    Beside("it", pytest.fail).close()


@pytest.fixture
def hanging(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A call that hangs until the test is over."""
    over = threading.Event()
    monkeypatch.setattr(observers, "_PATIENCE", 1)
    monkeypatch.setattr(observers, "_MOST_WAITING", 5)
    yield over.wait
    over.set()


def test_one_that_hangs_is_left_behind(hanging: Callable[..., Any]) -> None:
    warnings: list[str] = []
    beside = Beside("it", warnings.append)
    beside(hanging)
    beside.close()
    assert warnings == ["it does not keep up and is left out from here on; the run goes on"]


def test_a_callback_that_hangs_or_fails_costs_the_record_nothing(
    tmp_path: Path, hanging: Callable[..., Any]
) -> None:
    seen: list[tuple[int, Any]] = []
    warnings: list[str] = []

    def failing(step: int, metrics: Any) -> None:
        metrics.clear()  # its own copy
        raise OSError(28, "No space left on device")

    callbacks = [lambda step, metrics: hanging(), failing, lambda step, metrics: seen.append((step, metrics))]
    record = RunRecord(tmp_path, {}, 0, warnings.append, callbacks=callbacks)
    for step in range(1, 20):
        record.write(step, train_loss=step / 2)
        while len(seen) < step:  # so that this one keeps up
            threading.Event().wait(0.001)
    record.close()
    assert seen == [(step, {"train_loss": step / 2}) for step in range(1, 20)]
    assert [line["step"] for line in read_lines(tmp_path / "metrics.jsonl")] == list(range(1, 20))
    assert sorted(warnings) == [
        "the callback <lambda> does not keep up and is left out from here on; the run goes on",
        "the callback failing failed: [Errno 28] No space left on device; the run goes on",
    ]
