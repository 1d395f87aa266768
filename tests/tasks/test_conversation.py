"""Conversations as a task: only the assistant's tokens are learnt, whatever shares their row."""

import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

import llm_jax
from llm_jax.base.errors import DataError
from llm_jax.checkpoints.reader import read_about
from llm_jax.config.model import ModelConfig
from llm_jax.data.dialogue_batches import planned_rows, row_batch
from llm_jax.data.dialogues import find_columns, read_dialogues
from llm_jax.data.store import Marks
from llm_jax.data.tables import TableForm
from llm_jax.language_model.save import save_model
from llm_jax.model.decoder import init_params
from llm_jax.tasks.conversation import template_digest
from llm_jax.tokenization.chat_format import ChatFormat
from llm_jax.tokenization.from_huggingface import FileTokenizer
from llm_jax.train import train
from llm_jax.training.losses import next_token_loss
from tests.support.commands import metrics_of, run_command
from tests.tokenization.test_conversation import CHATML
from tests.tokenization.test_file_tokenizer import byte_level

MODEL = ModelConfig(
    vocab_size=31,
    d_model=16,
    num_layers=2,
    num_heads=2,
    context_length=16,
    dropout=0.0,
    positions="rotary",
    norm="rms",
)


def texts_of(lengths: tuple[int, ...]) -> tuple[np.ndarray, Marks]:
    drawn = np.random.default_rng(0)
    tokens = drawn.integers(0, 31, sum(lengths))
    trained = drawn.integers(0, 2, sum(lengths))
    edges = np.append(0, np.cumsum(lengths))
    trained[edges[:-1] + 1] = 1
    return tokens, Marks(edges, trained)


def loss_and_gradient(params: Any, batch: Any) -> tuple[jax.Array, Any]:
    def mean(params: Any) -> jax.Array:
        total, weight = next_token_loss(params, MODEL, batch, None)
        return total / weight

    return jax.jit(jax.value_and_grad(mean))(params)


@pytest.mark.compiles
def test_conversations_in_a_row_are_those_by_themselves_and_naive_packing_is_not() -> None:
    tokens, marks = texts_of((5, 7, 3))
    params = init_params(jax.random.key(0), MODEL)
    rows = planned_rows(marks.edges, 16)
    assert len(rows) == 1
    packed = row_batch(tokens, marks, rows, 16)
    apart = row_batch(tokens, marks, [[0], [1], [2]], 16)
    (a, slopes_a), (b, slopes_b) = (loss_and_gradient(params, each) for each in (packed, apart))
    np.testing.assert_allclose(a, b, rtol=0, atol=1e-6)
    for x, y in zip(*map(jax.tree.leaves, (slopes_a, slopes_b)), strict=True):
        np.testing.assert_allclose(x, y, rtol=0, atol=1e-6)
    naive, _ = loss_and_gradient(params, packed._replace(begins=None))
    assert abs(float(naive - b)) > 1e-3


@pytest.mark.compiles
def test_positions_that_are_not_learnt_have_a_gradient_of_exactly_zero() -> None:
    tokens, marks = texts_of((9, 6))
    params = init_params(jax.random.key(0), MODEL)
    batch = row_batch(tokens, marks, planned_rows(marks.edges, 16), 16)
    other = batch._replace(targets=np.where(batch.weights > 0, batch.targets, (batch.targets + 7) % 31))
    assert (other.targets != batch.targets).any()
    (a, slopes_a), (b, slopes_b) = (loss_and_gradient(params, each) for each in (batch, other))
    assert a == b
    for x, y in zip(*map(jax.tree.leaves, (slopes_a, slopes_b)), strict=True):
        np.testing.assert_array_equal(x, y)
    nothing = next_token_loss(params, MODEL, batch._replace(weights=np.zeros_like(batch.weights)), None)
    assert [float(each) for each in nothing] == [0, 0]


@pytest.mark.parametrize(
    ("names", "wanted"),
    [
        (["id", "messages"], ("messages", "", "", "")),
        (["instruction", "input", "output"], ("", "instruction", "input", "output")),
        (["document", "summary"], ("", "document", "", "summary")),
        (["text", "label"], None),
    ],
)
def test_columns_are_found_where_they_are_plain(names: list[str], wanted: tuple | None) -> None:
    found = find_columns(names)
    assert (found if found is None else tuple(found)) == wanted
    assert find_columns(["a", "b"], "b", "a") == ("", "b", "", "a")


FAULTY = {
    "empty": ("", "must be a table, but is empty"),
    "no columns": ('{"text": "a", "label": "b"}\n', "must have conversations"),
    "no answer": ('{"prompt": "a", "answer": ""}\n', "must have rows with an answer, found none"),
    "no list": ('{"messages": "hi"}\n', "row 1 must have a list in messages"),
    "a strange role": ('{"messages": [{"role": "cat", "content": "a"}]}\n', "must have messages with a role"),
}


@pytest.mark.parametrize("name", FAULTY)
def test_a_file_without_conversations_is_refused_in_a_line(name: str, tmp_path: Path) -> None:
    content, message = FAULTY[name]
    (tmp_path / "x.jsonl").write_text(content)
    with pytest.raises(DataError, match=message):
        read_dialogues(tmp_path / "x.jsonl", lambda line: None, TableForm())


def test_share_gpt_and_our_own_names_are_the_same(tmp_path: Path) -> None:
    lines = [
        {"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]},
        {"conversations": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]},
    ]
    (tmp_path / "x.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    first, second = read_dialogues(tmp_path / "x.jsonl", lambda line: None, TableForm())
    assert first.messages == second.messages


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model with a chat template, as an import leaves it."""
    tokenizer = FileTokenizer(byte_level())
    end = tokenizer.token_id("<|im_end|>")
    assert end is not None
    shape = {"d_model": 32, "num_layers": 1, "num_heads": 2, "context_length": 48, "dropout": 0.0}
    model = ModelConfig(vocab_size=tokenizer.vocab_size, positions="rotary", **shape)  # type: ignore[arg-type]
    folder = tmp_path_factory.mktemp("chat") / "model"
    chat = ChatFormat(CHATML, eos="<|im_end|>", eos_ids=(end,))
    save_model(folder, model, init_params(jax.random.key(0), model), tokenizer, chat)
    return folder


def rows(count: int) -> str:
    found = [{"instruction": "Count on.", "input": f"{n}", "output": f"{n + 1}"} for n in range(count)]
    return json.dumps(found)


@pytest.mark.compiles
def test_a_model_learns_to_answer_and_its_checkpoint_says_by_which_template(
    base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "rows.json").write_text(rows(90))
    words = ["--task.name=conversation", f"--data.corpus={tmp_path / 'rows.json'}", f"--from={base}"]
    words += [f"--run={tmp_path / 'run'}", f"--data.prepared={tmp_path / 'prepared'}", "--train.prompt=Count"]
    words += ["--steps=60", "--train.eval_interval=30", "--train.sample_tokens=4", "--train.save_interval=30"]
    words += ["--optim.learning_rate=0.01"]
    run_command(train, words, takes_files=True)
    scores = [line["validation_loss"] for line in metrics_of(tmp_path / "run") if "validation_loss" in line]
    assert scores[-1] < scores[0] / 3
    about = read_about(tmp_path / "run" / "checkpoints")
    assert about["chat"]["template"] == CHATML
    assert about["template_sha256"] == template_digest(ChatFormat(CHATML))
    model = llm_jax.load(tmp_path / "run")
    answer = model.chat([{"role": "user", "content": "Count on.\n\n41"}], max_new_tokens=6, temperature=0)
    assert answer.strip().isdigit()
    assert "left out 0 without an answer" in capsys.readouterr().out


@pytest.mark.compiles
def test_long_conversations_are_left_out_aloud_and_a_model_without_a_template_is_refused(
    base: Path, prose: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    long = [{"prompt": f"{n} " + "so " * (60 if n == 5 else 1), "answer": "yes"} for n in range(40)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in long))
    words = ["--task.name=conversation", f"--data.corpus={tmp_path / 'rows.jsonl'}", "--steps=2"]
    words += [f"--run={tmp_path / 'run'}", f"--data.prepared={tmp_path / 'prepared'}", "--train.prompt=Count"]
    run_command(train, [*words, f"--from={base}"], takes_files=True)
    assert "left out 1 conversations of more than 49 tokens" in capsys.readouterr().out
    run_command(train, [*words, f"--run={tmp_path / 'other'}"], 2, takes_files=True)
    assert "needs train.init_from, a model with a chat template" in capsys.readouterr().err
