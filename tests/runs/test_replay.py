"""A step done again is the step that was: loss and norms bit for bit, batch, dropout and comparison."""

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from llm_jax.base.batch import Batch
from llm_jax.base.json_lines import read_lines
from llm_jax.checkpoints.reader import read_about, read_before
from llm_jax.checkpoints.writer import Checkpoints
from llm_jax.config.load import config_from_dict
from llm_jax.config.run import Config
from llm_jax.convert import convert
from llm_jax.replay import replay
from llm_jax.runs import replay as replaying
from llm_jax.runs.record import mean_loss
from llm_jax.tokenization.plain import ByteTokenizer
from llm_jax.tokenization.protocol import decode
from llm_jax.train import train
from llm_jax.training.state import abstract_state
from tests.support.commands import run_command, words_for

pytestmark = pytest.mark.compiles

KEEP = ["--train.keep=9", "--train.max_skipped=1", "--optim.clip_norm=1"]  # saves at 0, 4, 6, 8 and 12
RUNS = {
    "plain": ["--optim.ema_decay=0.9"],
    "accumulated": ["--train.accumulation_steps=2", "--train.order=permutation", "--data.rare_ids=share"],
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, prose: Path) -> dict[str, Path]:
    """Finished runs of 12 steps with dropout, every step logged."""
    folders = {name: tmp_path_factory.mktemp(name) for name in RUNS}
    for name, folder in folders.items():
        run_command(train, words_for(folder, prose, *KEEP, *RUNS[name]), takes_files=True)
    return {name: folder / "run" for name, folder in folders.items()}


@pytest.fixture
def copied(runs: dict[str, Path], tmp_path: Path) -> Path:
    """A copy of the plain run, to be changed."""
    return shutil.copytree(runs["plain"], tmp_path / "run")


def done_again(
    run: Path, step: int, before: int, report: Callable[[str], None] = lambda _: None
) -> replaying.Replayed:
    material = replaying.open_run(run, step, report=report)
    return replaying.replay(run, material, step, before, report=report, track=lambda steps: steps)


def logged(run: Path, step: int) -> dict[str, Any]:
    (line,) = [e for e in read_lines(run / "metrics.jsonl") if e["step"] == step and "train_loss" in e]
    return line


def require_as_logged(replayed: replaying.Replayed, run: Path) -> None:
    line = logged(run, replayed.step)
    assert replayed.loss == line["train_loss"]
    for name in ("grad_norm", "update_norm", "grad_norms", "update_norms", "learning_rate", "skipped"):
        assert replayed.metrics[name] == line[name], name
    assert replaying.compare(replayed, run) == (line["train_loss"], 1, True, line["grad_norm"], True)


def keep_checkpoints(run: Path, *steps: int) -> None:
    for path in (run / "checkpoints").iterdir():
        if path.name.isdecimal() and int(path.name) not in steps:
            shutil.rmtree(path)


def rewrite_checkpoint(
    run: Path, step: int, change: Callable[[dict[str, Any]], dict[str, Any]], **about_changes: Any
) -> None:
    """Puts a changed state in the place of a checkpoint, which may say other things of itself."""
    directory = run / "checkpoints"
    about = read_about(directory, step)
    config: Config = config_from_dict(about["config"], str(run))
    restored = read_before(directory, abstract_state(config), step, print)
    assert restored is not None
    shutil.rmtree(directory / str(step))
    with Checkpoints(directory, keep=9, about=about | about_changes) as checkpoints:
        checkpoints.save(step, change(restored.state), metrics={}, score=None)


@pytest.mark.parametrize("name", RUNS)
@pytest.mark.parametrize(("step", "before", "recomputed"), [(11, 2, 2), (9, 0, 0), (3, 20, 2), (1, 20, 0)])
def test_a_step_done_again_is_the_step_bit_for_bit(
    runs: dict[str, Path], name: str, step: int, before: int, recomputed: int
) -> None:
    replayed = done_again(runs[name], step, before)
    assert len(replayed.earlier) == recomputed
    require_as_logged(replayed, runs[name])
    # The terms come from a program of their own, compiled without the gradient: equal up to rounding.
    assert replayed.nats.mean() == pytest.approx(replayed.loss, rel=1e-6)
    assert np.mean(replayed.row_losses()) == pytest.approx(replayed.loss, rel=1e-6)


def test_without_a_checkpoint_before_it_starts_at_the_beginning(copied: Path) -> None:
    keep_checkpoints(copied, 12)
    remarks: list[str] = []
    replayed = done_again(copied, 11, 2, remarks.append)
    assert "recomputing 11 steps from the beginning" in remarks[-1]
    require_as_logged(replayed, copied)
    losses = [metrics["loss_sum"] / metrics["weight"] for metrics in replayed.earlier]
    assert losses == [logged(copied, step)["train_loss"] for step in range(1, 11)]


def test_a_damaged_checkpoint_is_passed_over(copied: Path) -> None:
    shutil.rmtree(copied / "checkpoints" / "8" / "params")
    remarks: list[str] = []
    replayed = done_again(copied, 11, 2, remarks.append)
    assert "checkpoint 8 is damaged" in remarks[0]
    assert len(replayed.earlier) == 4
    require_as_logged(replayed, copied)


def test_after_a_roll_back_the_batch_is_the_one_that_the_counters_name(copied: Path) -> None:
    first = done_again(copied, 9, 0)

    def rolled_back(state: dict[str, Any]) -> dict[str, Any]:
        one = state["counters"]["step"] * 0 + 1
        return state | {"counters": state["counters"] | {"batch": one * 20, "rollbacks": one}}

    rewrite_checkpoint(copied, 8, rolled_back)
    replayed = done_again(copied, 10, 1)
    assert (first.batch_index, replayed.batch_index) == (8, 21)
    expected = replaying.open_run(copied, 1, report=print).batch_at(21)
    assert jax.tree.all(jax.tree.map(np.array_equal, replayed.batch, expected))
    # Its line is the one that the second attempt wrote, not that of the first.
    assert replaying.compare(replayed, copied) == (None,) * 5
    line = logged(copied, 10) | {"train_loss": replayed.loss, "grad_norm": 0.5}
    with (copied / "metrics.jsonl").open("a") as file:
        file.write(json.dumps(line) + "\n")
    assert replaying.compare(replayed, copied) == (replayed.loss, 1, True, 0.5, False)
    assert replaying.compare(first, copied).loss_equal


def test_a_step_that_is_not_finite_is_shown_and_what_came_after_a_roll_back_is_refused(
    copied: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rewrite_checkpoint(
        copied,
        8,
        lambda state: state | {"params": jax.tree.map(lambda leaf: leaf * math.nan, state["params"])},
    )
    run_command(replay, [str(copied), "--step", "9", "--before", "0"])
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert found["skipped"]
    assert found["loss"] is found["grad_norm"] is found["hardest"][0]["nats"] is None
    assert found["loss_equal"] is False
    # max_skipped is 1: after two such steps in a row the run would have rolled back.
    run_command(replay, [str(copied), "--step", "12", "--before", "0"], status=4)
    assert "rolled back at step 10" in capsys.readouterr().err


def made_up(losses: list[float], norms: list[float]) -> replaying.Replayed:
    """Steps with these loss sums and gradient norms of which the last is the one done again."""
    steps = [
        {
            "loss_sum": loss,
            "weight": 3.0,
            "grad_norm": norm,
            "grad_norms": {"blocks": [norm, 1.0], "head": 2.0},
        }
        for loss, norm in zip(losses, norms, strict=True)
    ]
    tokens = np.frombuffer("aé\nb".encode(), np.uint8)[None].astype(np.int32)
    batch = Batch(tokens[:, :-1], tokens[:, 1:], np.array([[1, 1, 0, 1]], np.float32))
    nats = np.array([[2.0, 5.0, 99.0, math.nan]])
    return replaying.Replayed(len(steps), len(steps) - 1, 0, batch, nats, steps[-1], steps[:-1])


@pytest.mark.parametrize(("count", "equal"), [(3, True), (4, None), (2, False), (None, None)])
def test_a_logged_mean_is_compared_only_when_all_its_steps_were_recomputed(
    tmp_path: Path, count: int | None, equal: bool | None
) -> None:
    replayed = made_up([1.1, 2.3, 3.7], [1.0, 1.0, 1.0])
    line: dict[str, Any] = {"step": 3, "train_loss": mean_loss([(1.1, 3.0), (2.3, 3.0), (3.7, 3.0)])}
    line |= {"grad_norm": 1.0} | ({"averaged_steps": count} if count else {})
    (tmp_path / "metrics.jsonl").write_text(json.dumps(line) + "\n")
    assert replaying.compare(replayed, tmp_path) == (line["train_loss"], count, equal, 1.0, True)


def test_norms_stand_beside_the_median_of_the_finite_ones_before() -> None:
    replayed = made_up([1.0] * 5, [3.0, math.inf, 1.0, 2.0, 50.0])
    assert replaying.beside_median(replayed, "grad_norms") == {
        "blocks/0": (50.0, 2.0),
        "blocks/1": (1.0, 1.0),
        "head": (2.0, 2.0),
    }
    assert replaying.beside_median(made_up([1.0], [7.0]), "grad_norms")["blocks/0"] == (7.0, None)


def test_the_hardest_targets_come_first_and_those_without_weight_never() -> None:
    found = replaying.hardest_targets(made_up([1.0], [1.0]), ByteTokenizer(), 9)
    assert [target.position for target in found] == [3, 1, 0]  # not a number is the hardest of all
    assert found[0][2:] == ("aé\n", "b", math.inf, 0.0)
    assert found[2].context == "a"
    assert found[2].probability == pytest.approx(math.exp(-2))


def test_the_pieces_of_a_row_are_its_text(runs: dict[str, Path]) -> None:
    pieces = replaying.row_pieces(made_up([1.0], [1.0]), ByteTokenizer(), 0)
    assert [piece for piece, _ in pieces] == ["a", "", "é", "\n", "b", ""]
    assert [nats for _, nats in pieces[:4]] == [None, 2.0, 5.0, 99.0]
    replayed = done_again(runs["plain"], 1, 0)
    tokenizer = replaying.open_run(runs["plain"], 1, report=print).store.tokenizer
    ids = [replayed.batch.tokens[2, 0], *replayed.batch.targets[2]]
    assert "".join(piece for piece, _ in replaying.row_pieces(replayed, tokenizer, 2)) == decode(
        tokenizer, ids
    )


def test_the_command_shows_the_batch_and_ends_in_json(
    runs: dict[str, Path], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    run_command(replay, [str(runs["plain"]), "--step", "12", "--hardest", "3", "--rows", "2"])
    *shown, last = capsys.readouterr().out.splitlines()
    found = json.loads(last)
    line = logged(runs["plain"], 12)
    assert (found["step"], found["batch"], found["recomputed_before"]) == (12, 11, 11)
    assert found["loss"] == found["logged_loss"] == line["train_loss"]
    assert found["grad_norms"] == line["grad_norms"]
    assert found["loss_equal"]
    assert found["grad_norm_equal"]
    nats = [target["nats"] for target in found["hardest"]]
    assert nats == sorted(nats, reverse=True)
    assert len(nats) == 3
    rows = [text for text in shown if text.startswith("row ")]
    assert len(rows) == 2
    assert max(found["row_losses"]) == pytest.approx(float(rows[0].split(":")[0].split("mean ")[1]), abs=1e-3)
    assert "blocks/1" in "".join(shown)


def test_what_cannot_be_replayed_is_one_line_and_a_status(
    runs: dict[str, Path], copied: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = str(runs["plain"])
    exported = str(tmp_path / "out.safetensors")
    run_command(convert, ["export", run, exported])
    run_command(convert, ["import", exported, str(tmp_path / "imported")])
    other = str(tmp_path / "other")
    shutil.copytree(copied, other)
    rewrite_checkpoint(Path(other), 12, lambda state: state, data_fingerprint="of another text")
    cases = [
        ([run, "--step", "0"], 2, "step (0) must be from 1 to 12"),
        ([run, "--step", "13"], 2, "step (13) must be from 1 to 12"),
        ([run, "--step", "3", "--before", "-1"], 2, "before (-1) must be at least 0"),
        ([run, "--step", "three"], 2, "step"),
        ([run], 2, "step"),
        ([str(tmp_path / "absent"), "--step", "3"], 4, "no such run"),
        ([str(tmp_path / "imported"), "--step", "3"], 4, "imported, not trained"),
        ([other, "--step", "3"], 4, "other data"),
    ]
    capsys.readouterr()
    for words, status, named in cases:
        run_command(replay, words, status=status)
        error = capsys.readouterr().err
        assert named in error
        assert error.count("\n") == 1
