"""Runs on what is no text file: standard input, which is read once, and records."""

import dataclasses
import io
import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from llm_jax.base.errors import DataError
from llm_jax.base.tree import Tree
from llm_jax.config.load import to_dict
from llm_jax.config.model import ModelConfig
from llm_jax.config.run import Config, DataConfig, TrainConfig
from llm_jax.data import corpora
from llm_jax.language_model.model import LanguageModel
from llm_jax.language_model.save import save_model
from llm_jax.prepare import prepare
from llm_jax.runs import train as running
from llm_jax.runs.data import gather, gather_again
from tests.support.commands import run_command


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
    tmp_path: Path, tiny: ModelConfig, tiny_params: Tree, standard_input: Callable[[bytes], None]
) -> None:
    standard_input(b"A text that comes through a pipe. " * 20)
    data = DataConfig(corpus="-", prepared=tmp_path, tokenizer="bytes", compact_vocab=False)
    config = Config(data=data, train=TrainConfig(run=tmp_path / "run"))
    store = gather(config, report=lambda _: None).store
    about = {"config": to_dict(config), "data_fingerprint": store.fingerprint}
    save_model(tmp_path / "run", tiny, tiny_params, store.tokenizer, **about)
    standard_input(b"")
    remarks: list[str] = []
    assert gather(config, remarks.append).store.fingerprint == store.fingerprint
    assert remarks == [f"standard input has nothing: {tmp_path}/run goes on with its tokens in {store.path}"]
    assert gather_again(about, "the run", print).store.fingerprint == store.fingerprint
    standard_input(b"Another text. " * 50)  # which is refused, as any other text of a run is
    assert gather(config, report=lambda _: None).store.fingerprint != store.fingerprint
    standard_input(b"")
    fresh = dataclasses.replace(config, train=TrainConfig(run=tmp_path / "other"))
    with pytest.raises(DataError, match="corpus standard input must hold text, got nothing"):
        gather(fresh, report=lambda _: None)


def test_a_plan_and_its_run_read_standard_input_once(
    tmp_path: Path, standard_input: Callable[[bytes], None]
) -> None:
    standard_input(b"A text that comes through a pipe. " * 20)
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
    (end,) = model.chat_format.eos_ids
    assert model.chat_format.eos == "<|endoftext|>"
    assert end in material.store.tokens("train")
    assert end in model._ends([])
    path.rename(tmp_path / "lines.txt")
    plain = DataConfig(corpus=str(tmp_path / "lines.txt"), prepared=tmp_path)
    assert "chat" not in running._about(gather(Config(data=plain), report=lambda _: None))
