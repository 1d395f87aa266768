"""A model whose rare ids share a row goes out with a row for each id: the same logits, tokens and text."""

import dataclasses
from pathlib import Path

import jax
import numpy as np
import pytest

import llm_jax
from llm_jax.config.model import ModelConfig
from llm_jax.interop.gguf.read_file import open_gguf
from llm_jax.interop.huggingface.tensor_names import import_params
from llm_jax.interop.shared_rows import with_a_row_for_each_id
from llm_jax.language_model.model import LanguageModel
from llm_jax.language_model.save import save_model
from llm_jax.model.decoder import init_params
from llm_jax.tokenization.compact import CompactTokenizer, compact
from llm_jax.tokenization.train_bpe import train_bpe
from tests.interop.test_convert import run_convert

TEXT = "The cat sat on the mat and the rat sat on the cat, and the mat sat still. " * 3
# The decoder of configs/first.toml, smaller.
FIRST = ModelConfig(
    context_length=24,
    d_model=32,
    num_layers=2,
    num_heads=2,
    positions="learned",
    activation="gelu",
    qkv_bias=True,
    head_bias=False,
    tied_head=True,
    initializer="gpt2",
)


def tokenizer() -> CompactTokenizer:
    base = train_bpe(TEXT, 276)
    return compact(base, base.encode(TEXT), 2, "share")


def a_model(config: ModelConfig) -> LanguageModel:
    of = tokenizer()
    config = dataclasses.replace(config, vocab_size=of.vocab_size, shared_ids=of.shared_ids)
    return LanguageModel(config, init_params(jax.random.key(3), config), of, {})


@pytest.mark.parametrize("tied", [True, False])
def test_logits_of_rows_written_out_are_those_of_the_shared_row(tied: bool) -> None:
    bias = {"head_bias": not tied, "tied_head": tied, "spare_embedding_rows": int(not tied)}
    model = a_model(dataclasses.replace(FIRST, **bias))
    own = with_a_row_for_each_id(model)
    assert own.config.shared_ids == 0 < model.config.shared_ids
    ids = np.array([0, 5, model.config.vocab_size - 1, model.config.num_rows - 1, model.config.num_rows])
    np.testing.assert_allclose(own.logits(ids), model.logits(ids), rtol=0, atol=1e-6)
    assert with_a_row_for_each_id(own) is own


def test_it_goes_out_both_ways_and_comes_in_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = a_model(FIRST)
    save_model(tmp_path / "ours", model.config, model.params, model.tokenizer)
    ids = model.tokenizer.encode("The rat and the cat?")
    for name, form in (("m.gguf", "gguf"), ("folder", "huggingface")):
        run_convert(["export", str(tmp_path / "ours"), str(tmp_path / name), "--format", form])
        assert "as gpt2" in capsys.readouterr().out
        run_convert(["import", str(tmp_path / name), str(tmp_path / f"{form}_again")])
        again = llm_jax.load(tmp_path / f"{form}_again")
        assert again.tokenizer.encode("The rat and the cat?").tolist() == ids.tolist()
        np.testing.assert_allclose(again.logits(ids), model.logits(ids), rtol=0, atol=1e-6)
    found = open_gguf(tmp_path / "m.gguf")
    rows = import_params("gpt2", with_a_row_for_each_id(model).config, found.shapes, found.read)
    table = rows["token_embedding"]["embedding"]
    assert (table[model.config.num_rows - 1 :] == table[-1]).all()
