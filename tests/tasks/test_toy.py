"""Another task is one file and one line: it trains, evaluates, goes on to the bit, and reports show it."""

import json
from pathlib import Path

import jax
import numpy as np
import pytest

import llm_jax
from llm_jax.base.errors import UserError
from llm_jax.checkpoints.reader import read_about, read_state
from llm_jax.evaluate import evaluate
from llm_jax.replay import replay
from llm_jax.report import report
from llm_jax.tasks import by_name
from llm_jax.train import train
from tests.support.commands import metrics_of, run_command
from tests.tasks.toy import LABELS, TOY

pytestmark = pytest.mark.compiles

SETTINGS = [
    *("--task.name=toy", "--data.tokenizer=bytes", "--data.no-compact_vocab", "--model.dropout=0.1"),
    *("--model.d_model=32", "--model.num_layers=1", "--model.num_heads=2", "--model.context_length=4"),
    *("--train.batch_size=32", "--train.eval_interval=60", "--train.save_interval=60"),
    *("--optim.learning_rate=0.02", "--train.log_interval=1"),
]


@pytest.fixture(autouse=True)
def _toy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(by_name.TASKS, "toy", lambda config: TOY)  # the one line


def words(folder: Path, prose: Path, steps: int, *more: str) -> list[str]:
    places = [
        f"--data.corpus={prose}",
        f"--data.prepared={folder / 'prepared'}",
        f"--train.run={folder / 'run'}",
    ]
    return [*SETTINGS, *places, f"--train.steps={steps}", *more]


def test_a_task_of_one_file_and_one_line_has_all_that_a_run_has(
    tmp_path: Path, prose: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    straight, halved = tmp_path / "straight", tmp_path / "halved"
    run_command(train, words(straight, prose, 120), takes_files=True)
    said = capsys.readouterr().out
    assert "baselines, nats per text: chance 1.099" in said
    summary = json.loads(said.splitlines()[-1])
    assert summary["validation_accuracy"] > 0.9
    assert summary["validation_loss"] < 0.5
    assert (straight / "run" / "samples.jsonl").exists() is False

    run_command(train, words(halved, prose, 60), takes_files=True)
    run_command(train, words(halved, prose, 120, "--continue-with-changes"), takes_files=True)
    states = [read_state(folder / "run" / "checkpoints") for folder in (straight, halved)]
    for a, b in zip(*map(jax.tree.leaves, states), strict=True):
        np.testing.assert_array_equal(a, b)
    losses = [
        [line.get("train_loss") for line in metrics_of(folder / "run")] for folder in (straight, halved)
    ]
    assert [each for each in losses[0] if each] == [each for each in losses[1] if each]
    assert read_about(straight / "run" / "checkpoints")["labels"] == list(LABELS)

    capsys.readouterr()
    run_command(evaluate, [str(straight / "run")])
    said = capsys.readouterr().out
    assert json.loads(said.splitlines()[-1])["accuracy"] == summary["validation_accuracy"]
    assert f"{summary['validation_accuracy']:.1%}" in said
    run_command(report, [str(straight / "run")])
    page = (straight / "run" / "report.html").read_text()
    assert "final accuracy" in page
    assert f"{summary['validation_accuracy']:.1%}" in page
    capsys.readouterr()
    run_command(replay, [str(straight / "run"), "--step", "70"])
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["loss_equal"] is True
    with pytest.raises(UserError, match="must hold a model that writes text"):
        llm_jax.load(straight / "run")


def test_a_task_that_is_not_there_is_named(
    tmp_path: Path, prose: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = [word.replace("=toy", "=poetry") for word in words(tmp_path, prose, 4)]
    run_command(train, asked, status=2, takes_files=True)
    assert (
        "task.name (poetry) must be one of language_modelling, conversation, classification, tagging, toy"
        in capsys.readouterr().err
    )
