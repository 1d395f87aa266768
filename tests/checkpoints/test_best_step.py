"""The best step: which it is, how long ago that was, and what is read in its place where it is damaged."""

from pathlib import Path

import pytest

from llm_jax.base.errors import CheckpointError, UserError
from llm_jax.checkpoints.reader import Step, read_about, read_params, read_restored, said_of_step
from llm_jax.checkpoints.step_files import best_step, saved_steps, sound_steps
from llm_jax.checkpoints.writer import Checkpoints
from tests.checkpoints.test_checkpoint import DAMAGES
from tests.support.checkpoints import ABOUT, a_state, abstract, same_bits, save_three

PARAMS = abstract(a_state()["params"])


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """Steps 1, 2 and 3, of which 1 has the best score."""
    return save_three(tmp_path)


def read(folder: Path, asked: Step) -> tuple[int, list[str]]:
    """The step that is read, and what is said on the way."""
    lines: list[str] = []
    params, about = read_params(folder, PARAMS, step=asked, report=lines.append)
    assert same_bits(params, a_state(about["step"])["params"])
    assert read_restored(folder, abstract(a_state()), asked).step == about["step"]
    return about["step"], [*lines, said_of_step(folder, asked, about["step"])]


def test_a_step_is_asked_for_as_the_best_the_last_or_a_number(saved: Path) -> None:
    assert read(saved, "best") == (1, ["step 1 of 3, the best by validation"])
    assert read(saved, "last") == (3, ["step 3 of 3, the last"])
    assert read(saved, 2) == read(saved, "2") == (2, ["step 2 of 3, as asked for"])
    assert read_about(saved, "best")["score"] == 0.5
    for asked in ("worst", "", "-1", "1.0", "9" * 5000):
        with pytest.raises(UserError, match="best, last or the number of a checkpoint"):
            read_about(saved, asked)
    with pytest.raises(CheckpointError, match=r"must hold checkpoint 4; it has steps \[1, 2, 3\]"):
        read_about(saved, 4)


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_best_is_passed_over_for_the_newest_that_is_sound(saved: Path, name: str) -> None:
    DAMAGES[name](saved / "1")
    step, (warning, line) = read(saved, "best")
    assert warning.startswith("warning: checkpoint 1 is damaged (")
    sound = dict(sound_steps(saved))  # without a manifest nobody knows any more that it was the best
    assert (step, line) == (3, f"step 3 of 3, {'the last' if 1 in sound else 'the best by validation'}")
    with pytest.raises(CheckpointError, match="no undamaged checkpoint"):
        read(saved, 1)
    assert (saved / "1").exists()


def test_where_nothing_was_evaluated_the_last_is_the_best(tmp_path: Path) -> None:
    with Checkpoints(tmp_path, keep=2, about=ABOUT) as checkpoints:
        for step in (0, 5):
            checkpoints.save(step, a_state(step), metrics={}, score=None)
    assert read(tmp_path, "best") == (5, ["step 5 of 5, the last, as none was evaluated"])
    assert best_step({}) is None


def test_of_equal_scores_the_earliest_is_the_best() -> None:
    assert best_step({9: 0.5, 3: 0.5, 6: 0.5, 1: 0.7, 0: None}) == 3


def test_evaluations_since_the_best_are_counted_across_resumes(tmp_path: Path) -> None:
    """Each evaluation by a process of its own; None is a save without one."""
    counts, state = [], abstract(a_state())
    for step, score in enumerate([3.0, 2.0, None, 2.0, float("nan"), 4.0, 1.0, 5.0], 1):
        with Checkpoints(tmp_path, keep=2, about=ABOUT) as checkpoints:
            checkpoints.restore(state)
            checkpoints.save(step, a_state(step), metrics={}, score=score)
            counts.append(checkpoints.since_best)
        with Checkpoints(tmp_path, keep=2, about=ABOUT) as checkpoints:
            assert checkpoints.since_best == counts[-1]
    assert counts == [0, 0, 0, 1, 2, 3, 0, 1]
    assert sorted(saved_steps(tmp_path)) == [7, 8]


def test_a_step_that_is_set_aside_takes_its_count_with_it(saved: Path) -> None:
    DAMAGES["flipped bit"](saved / "3")
    with Checkpoints(saved, keep=2, about=ABOUT, report=lambda _: None) as checkpoints:
        assert checkpoints.since_best == 2
        checkpoints.restore(abstract(a_state()))
        assert (checkpoints.since_best, checkpoints.best_step()) == (1, 1)
