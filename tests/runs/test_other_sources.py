"""Runs on what is no text file: standard input, which is read once, and records."""

import io
import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from llm_jax.checkpoints.reader import read_about
from llm_jax.checkpoints.step_files import checkpoint_directory
from llm_jax.config.run import Config, DataConfig
from llm_jax.data import corpora
from llm_jax.language_model.model import LanguageModel
from llm_jax.prepare import prepare
from llm_jax.runs import train as running
from llm_jax.runs.data import gather, gather_again
from llm_jax.train import train
from tests.support.commands import MODEL, run_command

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
    standard_input(prose.read_bytes()[:3000])
    run, places = tmp_path / "run", [f"--data.prepared={tmp_path}", f"--train.run={tmp_path / 'run'}"]
    words = [*MODEL, *places, "--data.corpus=-", "--train.sample_tokens=0", "--train.batch_size=2"]
    run_command(train, [*words, "--train.steps=1"])
    about = read_about(checkpoint_directory(run))
    capsys.readouterr()
    standard_input(b"")
    run_command(train, [*words, "--train.steps=2", "--continue-with-changes"])
    assert "standard input has nothing: " in capsys.readouterr().out
    again = read_about(checkpoint_directory(run))
    assert (again["step"], again["data_fingerprint"]) == (2, about["data_fingerprint"])
    assert gather_again(again, "the run", print).store.fingerprint == about["data_fingerprint"]
    standard_input(b"Another text. " * 500)
    run_command(train, [*words, "--train.steps=2"], status=4)
    assert "holds a run on other data" in capsys.readouterr().err
    standard_input(b"")
    run_command(train, ["--data.corpus", "-", f"--train.run={tmp_path / 'other'}"], status=3)
    assert "corpus standard input must hold text, got nothing" in capsys.readouterr().err


def test_a_plan_and_its_run_read_standard_input_once(
    tmp_path: Path, prose: Path, standard_input: Callable[[bytes], None]
) -> None:
    standard_input(prose.read_bytes()[:3000])
    config = Config(data=DataConfig(corpus="-", prepared=tmp_path, tokenizer="bytes", compact_vocab=False))
    first = gather(config, report=lambda _: None)
    assert gather(config, report=lambda _: None).store.fingerprint == first.store.fingerprint


def test_prepare_takes_standard_input_by_its_sign(
    tmp_path: Path, standard_input: Callable[[bytes], None], capsys: pytest.CaptureFixture[str]
) -> None:
    standard_input(b"A text that comes through a pipe. " * 20)
    run_command(prepare, ["-", f"--prepared={tmp_path}", "--tokenizer=bytes"])
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["bytes"] == 34 * 20


def test_a_model_of_records_ends_its_text_where_a_document_would_end(tmp_path: Path) -> None:
    path = tmp_path / "lines.jsonl"
    path.write_text("".join(json.dumps({"content": f"Document {number}."}) + "\n" for number in range(40)))
    material = gather(Config(data=DataConfig(corpus=str(path), prepared=tmp_path)), report=lambda _: None)
    about = running._about(material)
    model = LanguageModel(material.config.model, {}, material.store.tokenizer, about)
    (end,) = model.chat.eos_ids
    assert model.chat.eos == "<|endoftext|>"
    assert end in material.store.tokens("train")
    assert end in model._ends([])
    path.rename(tmp_path / "lines.txt")
    plain = DataConfig(corpus=str(tmp_path / "lines.txt"), prepared=tmp_path)
    assert "chat" not in running._about(gather(Config(data=plain), report=lambda _: None))
