"""A run that starts from a model on the same text goes on in its order of batches where it stopped."""

from pathlib import Path

import numpy as np
import pytest

from llm_jax.checkpoints.reader import read_about
from llm_jax.data.batches import OrderStart, batch_at, whole_epochs
from llm_jax.runs import data, replay
from llm_jax.runs.init_from import recorded_origin
from llm_jax.train import train
from tests.runs.test_going_on import going_on
from tests.support.commands import run_command

pytestmark = pytest.mark.compiles


def windows(order: str, size: int, steps: range, start: OrderStart) -> list[int]:
    """Where the windows of these steps begin in a text of 479 of them, and an epoch's room."""
    text = np.arange(480 * 8 + 1)
    batches = (
        batch_at(text, order=order, context_length=8, batch_size=size, seed=3, step=step, start=start)
        for step in steps
    )
    return [int(row[0]) for batch in batches for row in batch.tokens]


@pytest.mark.parametrize(("first", "second"), [(4, 4), (4, 3), (3, 5)])
def test_no_window_comes_twice_in_an_epoch_whatever_the_sizes_of_batches(first: int, second: int) -> None:
    done = windows("permutation", first, range(40), OrderStart())
    since = windows("permutation", second, range((479 - len(done)) // second), OrderStart(0, len(done)))
    assert len(set(done + since)) == len(done) + len(since)
    # A run whose size changed counts its batches on.
    changed = windows("permutation", second, range(40, 50), OrderStart(40, len(done)))
    assert changed == since[: len(changed)]


def test_random_crops_are_drawn_anew() -> None:
    done = windows("random", 4, range(40), OrderStart())
    assert windows("random", 4, range(40), OrderStart(0, 160)) != done
    assert windows("random", 4, range(40), OrderStart()) == done


def test_an_epoch_of_other_data_begins_at_its_beginning() -> None:
    assert [whole_epochs(count, 480 * 8 + 1, 8) for count in (0, 1, 479, 480)] == [0, 479, 479, 958]
    seen = windows("permutation", 1, range(479), OrderStart(0, 479))
    assert len(set(seen)) == 479


@pytest.fixture(scope="module")
def parent(tmp_path_factory: pytest.TempPathFactory, prose: Path) -> Path:
    folder = tmp_path_factory.mktemp("parent")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("llm_jax.reports.gather.leave_report", lambda *_: None)
        words = ["--data.tokenizer=bytes", "--train.order=permutation", "--train.steps=6"]
        run_command(train, going_on(folder, prose, *words), takes_files=True)
    return folder / "run"


def child_words(parent: Path, folder: Path, prose: Path, *more: str) -> list[str]:
    words = going_on(folder, prose, "--train.order=permutation", "--train.steps=6", *more)
    return [f"--train.init_from={parent}", *(word for word in words if not word.startswith("--model."))]


def test_a_run_leaves_out_what_its_model_has_seen_and_remembers_where_it_began(
    parent: Path, tmp_path: Path, prose: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llm_jax.reports.gather.leave_report", lambda *_: None)
    seen = rows_of(parent, range(6))
    one, two = tmp_path / "one", tmp_path / "two"
    run_command(train, child_words(parent, one, prose, "--train.batch_size=2"), takes_files=True)
    run_command(train, child_words(one / "run", two, prose), takes_files=True)
    assert [recorded(run / "run") for run in (one, two)] == [24, 24 + 12]
    everything = [*seen, *rows_of(one / "run", range(6)), *rows_of(two / "run", range(6))]
    assert len(set(everything)) == len(everything) == 24 + 12 + 24
    again = replay.replay(
        one / "run", replay.open_run(one / "run", 2, print), 2, 0, report=print, track=lambda steps: steps
    )
    assert replay.compare(again, one / "run").loss_equal


def test_a_run_that_was_begun_before_keeps_its_order() -> None:
    record = {"name": "old", "step": 6, "part": "params", "digest": "", "model": {}}
    origin = recorded_origin({"initialised_from": record, "tokenizer": {}})
    assert origin is not None
    assert origin.sequences == 0


def recorded(run: Path) -> int:
    return read_about(run / "checkpoints")["initialised_from"]["sequences"]


def rows_of(run: Path, steps: range) -> list[bytes]:
    """The windows of some steps of a run, each as its tokens."""
    material = data.gather_again(read_about(run / "checkpoints"), str(run), print)
    return [row.tobytes() for step in steps for row in np.asarray(material.batch_at(step).tokens)]
