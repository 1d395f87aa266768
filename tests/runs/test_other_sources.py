"""Runs on what is no text file: standard input, which is read once, and records."""

import io
import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import llm_jax
from llm_jax.checkpoints.reader import read_about
from llm_jax.checkpoints.step_files import checkpoint_directory
from llm_jax.config.run import Config, DataConfig
from llm_jax.data import corpora
from llm_jax.evaluate import evaluate
from llm_jax.prepare import prepare
from llm_jax.runs.data import gather
from llm_jax.train import train
from tests.support.commands import metrics_of, run_command, words_for

pytestmark = pytest.mark.compiles


@pytest.fixture
def standard_input(monkeypatch: pytest.MonkeyPatch) -> Callable[[bytes], None]:
    """Begins as a process would with this on its standard input."""

    def given(content: bytes) -> None:
        corpora._standard_input.cache_clear()
        corpora.is_given_input.cache_clear()
        stream: io.RawIOBase = io.BytesIO(content)  # type: ignore[assignment]
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BufferedReader(stream)))

    return given


def test_a_run_on_standard_input_goes_on_without_it(
    tmp_path: Path, prose: Path, standard_input: Callable[[bytes], None], capsys: pytest.CaptureFixture[str]
) -> None:
    standard_input(prose.read_bytes())
    words = [word for word in words_for(tmp_path, Path("-")) if not word.startswith("--train.steps")]
    run_command(train, [*words, "--train.steps=12"])
    directory = checkpoint_directory(tmp_path / "run")
    trained_on = read_about(directory)["data_fingerprint"]
    capsys.readouterr()
    standard_input(b"")
    run_command(train, [*words, "--train.steps=16", "--continue-with-changes"])
    assert "standard input has nothing: " in capsys.readouterr().out
    assert metrics_of(tmp_path / "run")[-1]["step"] == 16
    assert read_about(directory)["data_fingerprint"] == trained_on
    run_command(evaluate, [str(tmp_path / "run")])
    standard_input(b"Another text. " * 500)
    run_command(train, [*words, "--train.steps=16"], status=4)
    assert "holds a run on other data" in capsys.readouterr().err
    standard_input(b"")
    run_command(train, ["--data.corpus", "-", f"--train.run={tmp_path / 'other'}"], status=3)
    assert "corpus standard input must hold text, got nothing" in capsys.readouterr().err


def test_a_plan_and_its_run_read_standard_input_once(
    tmp_path: Path, prose: Path, standard_input: Callable[[bytes], None]
) -> None:
    standard_input(prose.read_bytes())
    config = Config(data=DataConfig(corpus="-", prepared=tmp_path, tokenizer="bytes", compact_vocab=False))
    first = gather(config, report=lambda _: None)
    assert gather(config, report=lambda _: None).store.fingerprint == first.store.fingerprint


def test_prepare_takes_standard_input_by_its_sign(
    tmp_path: Path, standard_input: Callable[[bytes], None], capsys: pytest.CaptureFixture[str]
) -> None:
    standard_input(b"A text that comes through a pipe. " * 20)
    run_command(prepare, ["-", f"--prepared={tmp_path}", "--tokenizer=bytes"])
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["bytes"] == 34 * 20


def test_a_model_of_records_ends_its_text_where_a_document_would_end(
    tmp_path: Path, prose: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = [line for line in prose.read_text().splitlines() if line.strip()]
    path = tmp_path / "lines.jsonl"
    path.write_text("".join(json.dumps({"content": line}) + "\n" for line in lines))
    run_command(train, words_for(tmp_path, path))
    assert f"{path}: took {len(lines)} texts" in capsys.readouterr().out
    model = llm_jax.load(tmp_path / "run")
    (end,) = model.chat.eos_ids
    assert model.chat.eos == "<|endoftext|>"
    assert model.tokenizer.token_bytes(end) == b""
    run_command(evaluate, [str(tmp_path / "run"), "--text", str(path)])
