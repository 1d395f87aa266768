"""`fit` and `predict`: a file of labelled texts becomes a model that tells labels."""

import json
import re
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

import llm_jax
from llm_jax.base.errors import UserError
from llm_jax.checkpoints.reader import read_about, read_state
from llm_jax.evaluate import evaluate
from llm_jax.fit import fit
from llm_jax.predict import predict
from llm_jax.report import report
from llm_jax.tasks.labeller import load_labeller
from llm_jax.train import train
from tests.support.commands import metrics_of, run_command, words_for
from tests.tasks.conftest import WORDS

pytestmark = pytest.mark.compiles

SMALL = [
    *("--model.d_model=32", "--model.num_layers=1", "--model.num_heads=2", "--train.batch_size=8"),
    *("--data.bpe_vocab_size=300", "--train.log_interval=5"),
    *("--optim.learning_rate=0.02", "--model.dropout=0", "--model.embedding_dropout=0"),
]


def words(folder: Path, data: Path, *more: str) -> list[str]:
    return [str(data), f"--data.prepared={folder / 'prepared'}", f"--run={folder / 'run'}", *SMALL, *more]


def answers(capsys: pytest.CaptureFixture[str], *asked: str) -> list[dict[str, Any]]:
    capsys.readouterr()
    run_command(predict, list(asked))
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


@pytest.fixture(scope="module")
def classifier(table: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("classifier")
    run_command(fit, words(folder, table, "--steps=60"))
    return folder / "run"


def test_a_table_becomes_a_classifier(
    classifier: Path, capsys: pytest.CaptureFixture[str], table: Path
) -> None:
    about = read_about(classifier / "checkpoints")
    assert about["labels"] == ["glad", "sad"]
    assert (about["config"]["data"]["text_column"], about["config"]["task"]["label_column"]) == (
        "note",
        "mood",
    )
    told = answers(
        capsys, str(classifier), *(f"--text=It is {word} today" for word in [*WORDS["glad"], *WORDS["sad"]])
    )
    assert [each["label"] for each in told] == ["glad"] * 5 + ["sad"] * 5
    for each in told:
        np.testing.assert_allclose(sum(each["probabilities"].values()), 1, atol=1e-5)
    capsys.readouterr()
    run_command(evaluate, [str(classifier)])
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["accuracy"] > 0.9
    run_command(report, [str(classifier)])
    assert "accuracy" in (classifier / "report.html").read_text()


def test_what_a_model_tells_does_not_depend_on_other_texts(classifier: Path) -> None:
    model = load_labeller(classifier, "best", print)
    texts = [["It is grim today"], ["merry"], ["a long text " * 40], ["x"]]
    together, alone = model.probabilities(texts), [model.probabilities([each])[0] for each in texts]
    for one, other in zip(together, alone, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)
    assert model.probabilities([]) == []


def test_files_are_told_line_by_line_and_row_by_row(
    classifier: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines, rows = tmp_path / "lines.txt", tmp_path / "rows.csv"
    lines.write_text("It was bleak\n\nIt was sunny\n")
    rows.write_text('day,note\n1,"It was bleak, ""so""\nshe said"\n2,\n3,It was sunny\n')
    for file in (lines, rows):
        told = answers(capsys, str(classifier), "--file", str(file))
        assert [each["label"] for each in told] == ["sad", None, "glad"]
    rows.write_text("day,text\n1,It was bleak\n")
    run_command(predict, [str(classifier), "--file", str(rows)], status=3)
    assert "must have the column 'note' of texts, but has 'day', 'text'" in capsys.readouterr().err


def test_a_fit_that_was_stopped_goes_on_to_the_bit(
    classifier: Path, table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    same = ("--train.eval_interval=10", "--optim.schedule=constant", "--optim.warmup_steps=3")
    halves, straight = tmp_path / "halves", tmp_path / "straight"
    for folder, steps in ((halves, 20), (halves, 40), (straight, 40)):
        run_command(fit, words(folder, table, f"--steps={steps}", *same))
    states = [read_state(folder / "run" / "checkpoints") for folder in (halves, straight)]
    for a, b in zip(*map(jax.tree.leaves, states), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_treebank_becomes_a_tagger(
    treebank: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_command(fit, words(tmp_path, treebank, "--steps=100", "--task.lookahead=1"))
    (told,) = answers(capsys, str(tmp_path / "run"), "--text=Day 7 : it was grim near home .")
    assert told["words"] == ["Day", "7", ":", "it", "was", "grim", "near", "home", "."]
    assert told["labels"] == ["NOUN", "NUM", "PUNCT", "PRON", "AUX", "ADJ", "ADP", "ADJ", "PUNCT"]
    told = answers(capsys, str(tmp_path / "run"), "--file", str(treebank))
    assert len(told) == 60
    assert told[0]["labels"][0] == "NOUN"


def test_where_words_begin_is_told_of_characters(
    treebank: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_command(fit, words(tmp_path, treebank, "--steps=80", "--label=segment", "--task.lookahead=1"))
    (told,) = answers(capsys, str(tmp_path / "run"), "--text=Day7:itwasgrimnearhome.")
    assert told["words"] == ["Day", "7", ":", "it", "was", "grim", "near", "home", "."]


def test_a_fit_starts_from_a_model_that_continues_texts(
    table: Path, prose: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_command(train, words_for(tmp_path, prose, "--model.context_length=64"), takes_files=True)
    folder = tmp_path / "fitted"
    more = [f"--from={tmp_path / 'run'}", "--steps=30"]
    run_command(
        fit,
        [
            word
            for word in words(folder, table, *more)
            if not word.startswith(("--model", "--data.bpe", "--optim"))
        ],
    )
    begun = read_about(folder / "run" / "checkpoints")
    assert begun["initialised_from"]["name"] == "run"
    assert begun["config"]["model"]["d_model"] == 16
    assert metrics_of(folder / "run")[0]["validation_loss"] == pytest.approx(np.log(2), abs=1e-6)
    run_command(report, [str(tmp_path / "run"), str(folder / "run"), f"--out={tmp_path / 'both.html'}"])
    assert "is not compared: its task is classification, which continues no text" in capsys.readouterr().out
    with pytest.raises(UserError, match="must hold a model that writes text, and its task is classification"):
        llm_jax.load(folder / "run")
    with pytest.raises(UserError, match="must hold a model that tells labels"):
        load_labeller(tmp_path / "run", "best", print)


FAULTY = {
    "empty": ("", "must be a table, but is empty"),
    "names alone": ("text,label\n", "must have rows, found none"),
    "one label": (
        "text,label\n" + "".join(f"a text {at},same\n" for at in range(40)),
        "is not plain; set label",
    ),
    "one column": ("text\na text of words\nanother text here\n", "is not plain"),
    "no text": ("text,label\n,a\n,b\n" * 3, "must have"),
}


@pytest.mark.parametrize("case", FAULTY)
def test_what_cannot_be_fitted_is_one_line(
    case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content, said = FAULTY[case]
    path = tmp_path / "data.csv"
    path.write_text(content)
    run_command(fit, words(tmp_path, path), status=3)
    printed = capsys.readouterr().err
    assert said in printed
    assert len(printed.strip().splitlines()) == 1


def test_show_examples_prints_each_label_where_it_is_told(
    table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_command(fit, words(tmp_path, table, "--show_examples=2"))
    said = capsys.readouterr().out
    assert "row 1: " in said
    assert re.search(r"\[(glad|sad) 1\]", said)
    assert not (tmp_path / "run").exists()
