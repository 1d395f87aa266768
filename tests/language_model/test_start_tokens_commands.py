"""The token before every text through the commands: in with a model, out with it, and left out where that is
asked; and texts scored by a model whose context is far longer than they are.
"""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from tokenizers import processors

import llm_jax
from llm_jax.evaluate import evaluate
from llm_jax.interop.gguf.read_file import open_gguf
from llm_jax.interop.huggingface.read_config import read_model_config
from llm_jax.interop.huggingface.write_config import write_model_config
from llm_jax.interop.huggingface.write_directory import write_directory
from tests.interop.test_convert import TEXTS, byte_level_tokenizer, run_convert
from tests.interop.test_families import LLAMA
from tests.interop.test_gguf_writing import MODELS, random_params
from tests.runs.test_origin import a_model
from tests.support.commands import run_command


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Hugging Face's files of a tiny Llama whose tokenizer puts <|end|> around every text."""
    folder = tmp_path_factory.mktemp("theirs")
    config = read_model_config(MODELS["llama"])
    write_directory(folder, write_model_config(config), config, random_params(config, size=0.1))
    tokenizer = byte_level_tokenizer()
    around = processors.TemplateProcessing(single="<|end|> $A <|end|>", special_tokens=[("<|end|>", 0)])
    tokenizer.post_processor = around
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"bos_token": "<|end|>"}))
    return folder


def test_it_comes_with_a_model_and_goes_out_in_both_formats(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_convert(["import", str(folder), str(tmp_path / "ours")])
    said = capsys.readouterr().out
    assert "<|end|> (id 0) stands before every text; <|end|> (id 0), which its tokenizer puts after" in said
    ours = llm_jax.load(tmp_path / "ours")
    ids = byte_level_tokenizer().encode(TEXTS[0]).ids
    assert ours.encode_prompt(TEXTS[0]) == [0, *ids]
    for name, form in (("out", "huggingface"), ("out.gguf", "gguf")):
        run_convert(["export", str(tmp_path / "ours"), str(tmp_path / name), "--format", form])
        run_convert(["import", str(tmp_path / name), str(tmp_path / f"again-{form}")])
        assert "<|end|> (id 0) stands before every text" in capsys.readouterr().out
        again = llm_jax.load(tmp_path / f"again-{form}")
        assert again.encode_prompt(TEXTS[0]) == [0, *ids]
        assert again.score(TEXTS[1]).total == pytest.approx(ours.score(TEXTS[1]).total, rel=1e-5)
    written = json.loads((tmp_path / "out" / "tokenizer_config.json").read_text())
    assert (written["add_bos_token"], written["bos_token"]) == (True, "<|end|>")
    keys = open_gguf(tmp_path / "out.gguf").tokenizer
    assert keys["tokenizer.ggml.add_bos_token"] is True
    assert keys["tokenizer.ggml.bos_token_id"] == 0


def test_it_can_be_left_out_and_put_in(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_convert(["import", str(folder), str(tmp_path / "without"), "--no-add_bos_token"])
    assert "no token stands before a text" in capsys.readouterr().out
    without = llm_jax.load(tmp_path / "without")
    assert without.encode_prompt(TEXTS[0]) == byte_level_tokenizer().encode(TEXTS[0]).ids
    run_convert(["export", str(tmp_path / "without"), str(tmp_path / "out"), "--format", "huggingface"])
    written = json.loads((tmp_path / "out" / "tokenizer_config.json").read_text())
    assert written["add_bos_token"] is False
    run_convert(["import", str(tmp_path / "out"), str(tmp_path / "with"), "--add_bos_token"])
    assert llm_jax.load(tmp_path / "with").encode_prompt(TEXTS[0])[0] == 0
    (tmp_path / "out" / "tokenizer_config.json").unlink()
    run_convert(["import", str(tmp_path / "out"), str(tmp_path / "none"), "--add_bos_token"], status=2)
    assert "add_bos_token needs a bos_token" in capsys.readouterr().err
    assert not (tmp_path / "none").exists()
    (tmp_path / "state.safetensors").write_bytes(b"")
    words = ["import", str(tmp_path / "state.safetensors"), str(tmp_path / "none"), "--no-add_bos_token"]
    run_convert(words, status=2)
    assert "for --add_bos_token" in capsys.readouterr().err


def test_a_text_is_scored_in_rows_as_long_as_it_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = read_model_config(LLAMA | {"vocab_size": 256, "hidden_size": 24})
    a_model(tmp_path / "model", dataclasses.replace(model, context_length=1 << 17))
    text = "A text that is short beside the context. " * 3
    (tmp_path / "text.txt").write_text(text)
    run_command(evaluate, [str(tmp_path / "model"), "--text", str(tmp_path / "text.txt")])
    said = json.loads(capsys.readouterr().out.splitlines()[-1])
    loaded = llm_jax.load(tmp_path / "model")
    scores = np.log(np.exp(loaded.logits([*text.encode()]).astype(np.float64)).sum(-1))
    chosen = np.take_along_axis(loaded.logits([*text.encode()])[:-1], np.array([*text.encode()])[1:, None], 1)
    assert said["loss"] == pytest.approx((scores[:-1] - chosen[:, 0]).mean(), rel=1e-5)
    assert said["tokens"] == len(text) - 1
