"""What makes an exported model start and stop: as its files said when it came in, and nothing invented."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

import llm_jax
from llm_jax.interop import export_model
from llm_jax.interop.gguf.read_file import open_gguf
from llm_jax.interop.huggingface.read_config import read_model_config
from llm_jax.interop.huggingface.write_config import write_model_config
from llm_jax.interop.huggingface.write_directory import write_directory
from llm_jax.runs.init_from import find_origin
from tests.interop.test_convert import run_convert
from tests.interop.test_gguf_writing import MODELS, random_params
from tests.tokenization.test_file_tokenizer import byte_level

CONFIG = read_model_config(MODELS["llama"] | {"vocab_size": 320})
TOLD = {"bos_token": "<|im_start|>", "eos_token": "<|im_end|>"}
MARKS = ("bos_token_id", "eos_token_id", "pad_token_id")


def theirs(folder: Path, marks: dict[str, Any], generation: dict[str, Any], told: dict[str, str]) -> Path:
    """A directory as another program wrote it."""
    folder.mkdir()
    write_directory(folder, write_model_config(CONFIG) | marks, CONFIG, random_params(CONFIG, size=0.1))
    files = {"tokenizer.json": byte_level(), "tokenizer_config.json": told}
    for name, content in (files | ({"generation_config.json": generation} if generation else {})).items():
        (folder / name).write_text(json.dumps(content))
    return folder


def exported(folder: Path, source: Path) -> Path:
    run_convert(["import", str(source), str(folder / "ours")])
    run_convert(["export", str(folder / "ours"), str(folder / "out"), "--format", "huggingface"])
    return folder / "out"


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def test_ids_that_begin_end_and_fill_texts_go_out_as_they_came_in(tmp_path: Path) -> None:
    end = next(t["id"] for t in byte_level()["added_tokens"] if t["content"] == "<|im_end|>")
    marks = {"bos_token_id": 5, "eos_token_id": 7, "pad_token_id": 9}
    generation = {"bos_token_id": 6, "eos_token_id": [7, 8], "do_sample": True}
    out = exported(tmp_path, theirs(tmp_path / "theirs", marks, generation, TOLD))
    wanted = {"bos_token_id": 6, "eos_token_id": [7, 8, end], "pad_token_id": 9}
    assert {name: read(out / "config.json")[name] for name in MARKS} == wanted
    assert read(out / "generation_config.json") == wanted
    assert read(out / "tokenizer_config.json").items() >= TOLD.items()


def test_a_token_that_has_a_name_needs_no_id(tmp_path: Path) -> None:
    out = exported(tmp_path, theirs(tmp_path / "theirs", {}, {}, TOLD))
    ids = {token["content"]: token["id"] for token in byte_level()["added_tokens"]}
    assert read(out / "generation_config.json") == {
        "bos_token_id": ids["<|im_start|>"],
        "eos_token_id": ids["<|im_end|>"],
    }


def test_nothing_is_invented(tmp_path: Path) -> None:
    out = exported(tmp_path, theirs(tmp_path / "theirs", {"pad_token_id": -1, "bos_token_id": 320}, {}, {}))
    assert not (out / "generation_config.json").exists()
    assert {name: read(out / "config.json")[name] for name in MARKS} == dict.fromkeys(MARKS)
    named = {f"{name}_token" for name in ("bos", "eos", "pad", "unk", "sep")}
    assert not named & read(out / "tokenizer_config.json").keys()


def test_a_gguf_file_has_the_ids_too_and_gives_them_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    marks = {"bos_token_id": 5, "eos_token_id": [7, 8, 11], "pad_token_id": 9}
    run_convert(["import", str(theirs(tmp_path / "theirs", marks, {}, {})), str(tmp_path / "ours")])
    run_convert(["export", str(tmp_path / "ours"), str(tmp_path / "m.gguf"), "--format", "gguf"])
    found = open_gguf(tmp_path / "m.gguf").tokenizer
    ids = {"bos": 5, "eos": 7, "eot": 8, "eom": 11, "padding": 9}
    assert {name: found[f"tokenizer.ggml.{name}_token_id"] for name in ids} == ids
    run_convert(["import", str(tmp_path / "m.gguf"), str(tmp_path / "again")])
    more = dataclasses.replace(llm_jax.load(tmp_path / "ours"), about={"chat": {"eos_ids": [5, 6, 7, 8]}})
    monkeypatch.setattr(export_model, "load", lambda *_, **__: more)
    said = export_model.export_gguf(tmp_path, tmp_path / "more.gguf", None)
    assert "llama.cpp stops at 3 tokens, and this model at 4" in said
    monkeypatch.undo()
    out = tmp_path / "hf"
    run_convert(["export", str(tmp_path / "again"), str(out), "--format", "huggingface"])
    assert {name: read(out / "config.json")[name] for name in MARKS} == marks


def test_a_run_that_began_from_a_model_goes_out_with_its_ids(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    marks = {"bos_token_id": 5, "eos_token_id": 7, "pad_token_id": 9}
    run_convert(["import", str(theirs(tmp_path / "theirs", marks, {}, {})), str(tmp_path / "ours")])
    record = find_origin(str(tmp_path / "ours"), tmp_path / "run").about()
    tuned = dataclasses.replace(llm_jax.load(tmp_path / "ours"), about=record)
    monkeypatch.setattr(export_model, "load", lambda *_, **__: tuned)
    export_model.export_huggingface(tmp_path / "run", tmp_path / "out")
    assert read(tmp_path / "out" / "generation_config.json") == marks
