"""What is known of words is read beside their tokens: in batches, models, runs and predictions."""

import json
import random
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from llm_jax.base.errors import DataError, UserError
from llm_jax.checkpoints.reader import read_about
from llm_jax.config.model import ModelConfig
from llm_jax.config.task import TaskConfig
from llm_jax.data.factors import Factors, find_factors
from llm_jax.data.label_batches import Reading, planned_rows, row_batch
from llm_jax.data.store import Marks
from llm_jax.evaluate import evaluate
from llm_jax.fit import fit
from llm_jax.model.heads import FACTORS, factor_vectors, init_params
from llm_jax.predict import predict
from llm_jax.tasks.factors import names_of, read_fields, words_of
from tests.support.commands import metrics_of, run_command
from tests.tasks.test_fit import words

FIELDS = [{"upos": ["NOUN", "VERB", "_"], "phones": ["K AE1 T", "S AE1 T", "_"]}] * 2


def test_each_part_that_training_has_twice_has_a_number_and_all_others_share_one() -> None:
    rare = {"upos": ["X"], "phones": ["_"]}
    factors = find_factors(["upos", "phones"], [*FIELDS, rare])
    assert [each.parts for each in factors.each] == [("NOUN", "VERB"), ("AE1", "K", "S", "T")]
    assert (factors.slots, factors.values) == (1 + 3, 1 + 3 + 5)
    found = factors.encode({"upos": ["VERB", "X", "_"], "phones": ["S AE1", "ZH", "_"]}, [2, 1, 1])
    np.testing.assert_array_equal(found, [[3, 7, 5, 0], [3, 7, 5, 0], [1, 4, 0, 0], [0, 0, 0, 0]])
    assert Factors.from_list(json.loads(json.dumps(factors.to_list()))) == factors
    assert (Factors().slots, Factors().values) == (0, 0)


def test_a_batch_has_them_where_its_tokens_are() -> None:
    marks = Marks(np.array([0, 2, 3]), np.array([0, 1, 2]), np.array([[1, 2], [3, 4], [5, 6]]))
    reading = Reading(9, start_ids=(9,), end_ids=(8,), twice=True)
    batch = row_batch(np.array([11, 12, 13]), marks, planned_rows(marks, reading), reading)
    np.testing.assert_array_equal(batch.tokens, [[9, 11, 12, 11, 12, 8, 0, 0, 0], [9, 13, 13, 8, *[0] * 5]])
    zero = [0, 0]
    np.testing.assert_array_equal(batch.factors[0], [zero, [1, 2], [3, 4], [1, 2], [3, 4], *[zero] * 4])
    np.testing.assert_array_equal(batch.factors[1], [zero, [5, 6], [5, 6], *[zero] * 6])


def test_their_embeddings_are_summed_and_number_0_adds_nothing() -> None:
    config = ModelConfig(vocab_size=5, num_labels=2, factor_values=4, factor_slots=2, d_model=8, num_heads=2)
    params = init_params(jax.random.key(0), config)
    assert not params[FACTORS]["embedding"].any()
    table = jnp.arange(32.0).reshape(4, 8)
    params[FACTORS] = {"embedding": table}
    found = factor_vectors(params, config, jnp.array([[[1, 3], [0, 2], [0, 0]]]))
    np.testing.assert_array_equal(found, [[table[1] + table[3], table[2], jnp.zeros(8)]])


def test_fields_are_those_of_the_file_or_how_words_are_spoken() -> None:
    task = TaskConfig(name="tagging", label_column="entity", factors="upos, pinyin")
    assert names_of(task) == ["upos", "pinyin"]
    found = read_fields(["upos", "pinyin"], task, ["银行", " 7"], {"upos": ["NOUN", "NUM"]}, 1)
    assert found == {"upos": ["NOUN", "NUM"], "pinyin": ["yin2 hang2", "_"]}
    with pytest.raises(DataError, match="text 3 must have the field 'upos'"):
        read_fields(["upos"], task, ["a"], {}, 3)
    told = TaskConfig(name="tagging", label_column="segment", factors="pinyin")
    assert read_fields(["pinyin"], told, [*"在银行A"], {}, 1) == {"pinyin": ["zai4", "yin2", "hang2", "_"]}


def test_how_a_word_is_written_has_several_sides() -> None:
    task, given = TaskConfig(name="tagging", label_column="upos"), ["Running", "B-52"]
    found = read_fields(["norm", "prefix", "suffix", "shape", "pairs"], task, given, {}, 1)
    assert found == {
        "norm": ["running", "b-00"],
        "prefix": ["r ru run", "b b- b-0"],
        "suffix": ["g ng ing", "0 00 -00"],
        "shape": ["Xxxx", "X-00"],
        "pairs": ["<^_running >running_b-00", "<running_b-00 >b-00_^"],
    }


@pytest.mark.parametrize(
    ("label", "factors", "message"),
    [
        ("upos", "upos", "must leave out upos, which is what the model tells"),
        ("upos", "phones,phones", "each once"),
        ("upos", "phones,", "each once"),
        ("segment", "upos", "must be of pinyin, pairs, window"),
    ],
)
def test_fields_that_make_no_sense_are_refused(label: str, factors: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        names_of(TaskConfig(name="tagging", label_column=label, factors=factors))


@pytest.mark.parametrize("text", ["Call 0800-WIN now!! ", "", "  ", "今天 ok", "a_b c"])
def test_words_of_a_text_make_it_up(text: str) -> None:
    assert "".join(words_of(text)) == text
    assert words_of("Call 080x now!! ") == ["Call", " 080", "x", " now", "!! "]


@pytest.mark.compiles
def test_a_classifier_reads_how_words_are_written(
    table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_command(fit, words(tmp_path, table, "--steps=30", "--task.factors=norm,suffix"))
    about = read_about(tmp_path / "run" / "checkpoints")
    assert [each["name"] for each in about["factors"]] == ["norm", "suffix"]
    assert best_accuracy(tmp_path / "run") == 1
    capsys.readouterr()
    given = [f"--text={text}" for text in ("It was a lovely day.", "It was a grim day.")]
    run_command(predict, [str(tmp_path / "run"), *given])
    told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [each["label"] for each in told] == ["glad", "sad"]


@pytest.fixture(scope="module")
def hinted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Words that say nothing of their label, which is that of the word class."""
    path = tmp_path_factory.mktemp("hinted") / "words.jsonl"
    drawn = random.Random(0)
    syllables = [first + last for first in "bdfgklmnprst" for last in "aeiou"]
    rows = [
        {
            "words": ["".join(drawn.choices(syllables, k=2)) for _ in numbers],
            "hint": [("left", "right")[number] for number in numbers],
            "upos": [("NOUN", "VERB")[number] for number in numbers],
        }
        for numbers in [drawn.choices((0, 1), k=4) for _ in range(240)]
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def best_accuracy(run: Path) -> float:
    return max(line["validation_accuracy"] for line in metrics_of(run) if "validation_accuracy" in line)


@pytest.mark.compiles
def test_a_run_learns_from_a_field_alone_and_predicts_with_it(
    hinted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ("--label=upos", "--steps=60")
    run_command(fit, words(tmp_path / "without", hinted, *options))
    run_command(fit, words(tmp_path / "with", hinted, *options, "--task.factors=hint"))
    accuracy = {name: best_accuracy(tmp_path / name / "run") for name in ("without", "with")}
    assert accuracy["without"] < 0.8
    assert accuracy["with"] > 0.97
    about = read_about(tmp_path / "with" / "run" / "checkpoints")
    assert about["factors"] == [{"name": "hint", "slots": 1, "parts": ["left", "right"]}]
    assert about["config"]["model"]["factor_values"] == 4
    run_command(evaluate, [str(tmp_path / "with" / "run")])
    capsys.readouterr()
    run_command(predict, [str(tmp_path / "with" / "run"), "--file", str(hinted)])
    told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    wanted = [json.loads(line)["upos"] for line in hinted.read_text().splitlines()]
    assert np.mean(np.array([each["labels"] for each in told]) == np.array(wanted)) > 0.98
    run_command(predict, [str(tmp_path / "with" / "run"), "--text=w1 w2"], status=3)
    assert "text 1 must have the field 'hint' of task.factors" in capsys.readouterr().err


@pytest.mark.compiles
def test_a_model_that_read_fields_gives_its_blocks_to_one_that_reads_others(
    hinted: Path, tmp_path: Path
) -> None:
    options = ("--task.name=tagging", "--label=upos", "--steps=4")
    run_command(fit, words(tmp_path / "first", hinted, *options, "--task.factors=hint"))
    free = [
        word
        for word in words(tmp_path / "second", hinted, *options)
        if not word.startswith(("--model", "--data.bpe"))
    ]
    run_command(fit, [*free, f"--from={tmp_path / 'first' / 'run'}"])
    about = read_about(tmp_path / "second" / "run" / "checkpoints")
    assert about["factors"] == []
    assert about["config"]["model"]["factor_values"] == 0
