"""The command that exports: what is written is read again, what is left out said; a fault leaves nothing."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import llm_jax
from llm_jax.base.tree import flatten
from llm_jax.interop import export_model
from llm_jax.interop.gguf.read_file import open_gguf
from llm_jax.interop.gguf.write_file import rounded
from llm_jax.interop.huggingface.read_config import read_model_config
from llm_jax.interop.huggingface.write_config import write_model_config
from llm_jax.interop.huggingface.write_directory import write_directory
from llm_jax.tokenization.plain import CharacterTokenizer
from tests.interop.test_convert import byte_level_tokenizer, run_convert
from tests.interop.test_gguf_writing import MODELS, random_params
from tests.interop.test_sources import refusal_of


@pytest.fixture(scope="module")
def imported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory of ours with a tokenizer out of a file."""
    folder = tmp_path_factory.mktemp("theirs")
    config = read_model_config(MODELS["llama"])
    write_directory(folder, write_model_config(config), config, random_params(config, size=0.1))
    byte_level_tokenizer().save(str(folder / "tokenizer.json"))
    run_convert(["import", str(folder), str(folder / "ours")])
    return folder / "ours"


def test_a_model_goes_out_and_comes_in_again_with_its_tokenizer(
    imported: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_convert(["export", str(imported), str(tmp_path / "m.gguf"), "--format", "gguf"])
    assert "as llama in float32; read again, every bit is equal, and logits agree" in capsys.readouterr().out
    run_convert(["import", str(tmp_path / "m.gguf"), str(tmp_path / "again")])
    ours, again = llm_jax.load(imported), llm_jax.load(tmp_path / "again")
    for (path, leaf), (_, other) in zip(flatten(again.params), flatten(ours.params), strict=True):
        np.testing.assert_array_equal(leaf, other, err_msg=path)
    text = "the cat sat on a hat"
    assert again.tokenizer.encode(text).tolist() == ours.tokenizer.encode(text).tolist()
    assert again.generate(text, max_new_tokens=5, seed=1) == ours.generate(text, max_new_tokens=5, seed=1)


def test_what_rounding_changed_is_said(
    imported: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_convert(["export", str(imported), str(tmp_path / "m.gguf"), "--format", "gguf", "--dtype", "q8_0"])
    said = capsys.readouterr().out
    assert "every bit is that of the rounded weights, whose logits differ by up to 0." in said
    size = (tmp_path / "m.gguf").stat().st_size
    assert size < 2 * sum(leaf.size for _, leaf in flatten(llm_jax.load(imported).params))


def test_a_tokenizer_that_llama_cpp_has_not_got_is_left_out_and_said(
    imported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = dataclasses.replace(llm_jax.load(imported), tokenizer=CharacterTokenizer("abc"))
    monkeypatch.setattr(export_model, "load", lambda *_, **__: model)
    said = export_model.export_gguf(imported, tmp_path / "m.gguf", None)
    assert "without a tokenizer: llama.cpp's tokenizer of single characters" in said
    assert open_gguf(tmp_path / "m.gguf").tokenizer == {"tokenizer.ggml.model": "no_vocab"}
    said = export_model.export_huggingface(imported, tmp_path / "hf")
    assert "without" not in said
    assert (tmp_path / "hf" / "tokenizer.json").exists()


def test_what_is_known_of_conversations_goes_along(
    imported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = llm_jax.load(imported)
    chat = {"template": "{{ messages }}", "bos": None, "eos": "<|end|>", "eos_ids": [0]}
    monkeypatch.setattr(
        export_model, "load", lambda *_, **__: dataclasses.replace(loaded, about={"chat": chat})
    )
    export_model.export_gguf(imported, tmp_path / "m.gguf", "bfloat16")
    found = open_gguf(tmp_path / "m.gguf").tokenizer
    assert found["tokenizer.chat_template"] == "{{ messages }}"
    assert found["tokenizer.ggml.eos_token_id"] == loaded.tokenizer.token_id("<|end|>")
    export_model.export_huggingface(imported, tmp_path / "hf")
    told = json.loads((tmp_path / "hf" / "tokenizer_config.json").read_text())
    assert told["chat_template"] == "{{ messages }}"
    assert told["eos_token"] == "<|end|>"
    assert "bos_token" not in told


def wrong_bits(tensor: np.ndarray, stored: Any) -> np.ndarray:
    return rounded(tensor, stored) + np.float32(1e-6)


class OtherIds(CharacterTokenizer):
    """A tokenizer whose file would say something else."""

    def encode(self, text: str) -> np.ndarray:
        return super().encode(text)[::-1]


@pytest.mark.parametrize("fault", ["bits", "logits", "ids", "interrupt"])
def test_nothing_is_left_behind_when_the_check_fails(
    imported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    loaded = llm_jax.load(imported)
    out, message = tmp_path / "m.gguf", "does not hold the bits that were written"
    if fault == "bits":
        monkeypatch.setattr(export_model, "rounded", wrong_bits)
    if fault == "logits":
        message = "gives other logits than the model"
        changed = dataclasses.replace(loaded.config, norm_eps=0.1)
        monkeypatch.setattr(export_model, "read_model_config", lambda _: changed)
    if fault == "ids":
        out, message = tmp_path / "hf", "gives other tokens"
        model = dataclasses.replace(loaded, tokenizer=OtherIds("abc"))
        monkeypatch.setattr(export_model, "load", lambda *_, **__: model)
        assert message in refusal_of(lambda: export_model.export_huggingface(imported, out))
    elif fault == "interrupt":
        monkeypatch.setattr(export_model, "open_gguf", interrupted)
        with pytest.raises(KeyboardInterrupt):
            export_model.export_gguf(imported, out, None)
    else:
        assert message in refusal_of(lambda: export_model.export_gguf(imported, out, None))
    assert list(tmp_path.iterdir()) == []


def interrupted(path: Path) -> None:
    assert path.exists()
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["m.bin", "--format", "gguf"], "must end in .gguf"),
        (["m", "--format", "huggingface", "--dtype", "q8_0"], "leave --dtype q8_0 out"),
        (["m.gguf", "--format", "gguf", "--dtype", "q4_0"], "q4_0"),
        (["file/m.gguf", "--format", "gguf"], "cannot be written"),
    ],
    ids=["name", "format", "type", "folder"],
)
def test_a_mistake_is_one_line(
    imported: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    (tmp_path / "file").touch()
    run_convert(["export", str(imported), str(tmp_path / words[0]), *words[1:]], 2)
    assert message in capsys.readouterr().err
    assert sorted(tmp_path.iterdir()) == [tmp_path / "file"]
