"""Modules that an adapter was trained with as a whole (modules_to_save): they take the model's place, and a
head that was the embedding becomes one of its own where either changes.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import llm_jax
from llm_jax.base.errors import CheckpointError
from llm_jax.interop.huggingface.read_config import read_model_config
from llm_jax.interop.huggingface.read_directory import open_directory
from llm_jax.interop.peft.merge import merge_adapter
from tests.interop.test_adapters import (
    QUERY,
    factors,
    merge,
    product,
    require_merged,
    write_adapter,
    write_base,
)
from tests.interop.test_convert import byte_level_tokenizer, run_convert
from tests.interop.test_families import LLAMA

TABLE, HEAD, NORM = "model.embed_tokens.weight", "lm_head.weight", "model.layers.0.input_layernorm.weight"
TIED = LLAMA | {"tie_word_embeddings": True}


def saved(*names: str, rows: int = 31, width: int = 12) -> dict[str, np.ndarray]:
    """Modules as peft saves them whole."""
    random = np.random.default_rng(3)
    shapes = {name: (width,) if name == NORM else (rows, width) for name in names}
    return {
        f"base_model.model.{name}": random.normal(size=shape).astype(np.float32)
        for name, shape in shapes.items()
    }


def plain(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name.removeprefix("base_model.model."): tensor for name, tensor in tensors.items()}


def test_modules_that_were_saved_take_the_models_place(tmp_path: Path) -> None:
    tensors = write_base(tmp_path / "base", LLAMA)
    held, query = saved(TABLE, HEAD, NORM), factors(QUERY, 3, 12, 12)
    modules = ["embed_tokens", "lm_head", "input_layernorm"]
    adapter = write_adapter(tmp_path / "tuned", held | query, modules_to_save=modules)
    found = merge(tmp_path / "base", adapter)
    require_merged(found, tensors | plain(held), {f"{QUERY}.weight": product(query, 5 / 3)})


@pytest.mark.parametrize("names", [[TABLE], [HEAD], [TABLE, HEAD]], ids=["embedding", "head", "both"])
def test_a_tied_head_becomes_a_matrix_of_its_own(names: list[str], tmp_path: Path) -> None:
    tensors = write_base(tmp_path / "base", TIED)
    held = saved(*names)
    adapter = write_adapter(tmp_path / "tuned", held, modules_to_save=[])
    source = open_directory(tmp_path / "base")
    found, model = merge_adapter(source, adapter, read_model_config(TIED))
    assert not model.tied_head
    require_merged(found, tensors | {HEAD: tensors[TABLE]} | plain(held), {})


def test_factors_of_a_tied_embedding_leave_the_head_as_it_was(tmp_path: Path) -> None:
    tensors = write_base(tmp_path / "base", TIED)
    a, b = factors("model.embed_tokens", 3, 31, 12).values()
    held = {
        f"base_model.model.model.embed_tokens.lora_embedding_{name}": f
        for name, f in zip("AB", (a, b), strict=True)
    }
    found = merge(tmp_path / "base", write_adapter(tmp_path / "tuned", held))
    require_merged(found, tensors | {HEAD: tensors[TABLE]}, {TABLE: product(held, 5 / 3).T})


def test_a_head_stays_tied_where_neither_changes(tmp_path: Path) -> None:
    write_base(tmp_path / "base", TIED)
    adapter = write_adapter(tmp_path / "tuned", factors(QUERY, 3, 12, 12))
    source = open_directory(tmp_path / "base")
    assert merge_adapter(source, adapter, read_model_config(TIED))[1].tied_head


def test_the_command_imports_a_tied_model_whose_adapter_unties_it(tmp_path: Path) -> None:
    config = TIED | {"vocab_size": 272, "hidden_size": 24}
    tensors = write_base(tmp_path / "base", config)
    byte_level_tokenizer().save(str(tmp_path / "base" / "tokenizer.json"))
    held = saved(HEAD, rows=272, width=24)
    adapter = write_adapter(tmp_path / "tuned", held, modules_to_save=["lm_head"])
    run_convert(["import", str(tmp_path / "base"), str(tmp_path / "ours"), "--adapter", str(adapter)])
    params = llm_jax.load(tmp_path / "ours").params
    np.testing.assert_array_equal(params["head"]["kernel"], next(iter(held.values())).T)
    np.testing.assert_array_equal(params["token_embedding"]["embedding"], tensors[TABLE])


@pytest.mark.parametrize(
    ("held", "fields", "message"),
    [
        (saved(HEAD, rows=33), {}, r"lm_head.weight must have shape \(31, 12\), got '\(33, 12\)'"),
        (
            saved(TABLE, rows=33),
            {},
            "the model's 31 tokens, but .* has 33 rows; give the model with the tokens",
        ),
        (
            saved(HEAD),
            {"modules_to_save": ["embed_tokens"]},
            "must hold 'embed_tokens', as modules_to_save says",
        ),
        (
            saved("score.weight"),
            {"modules_to_save": ["score"]},
            "of this model alone, but has 'base_model.model.sc",
        ),
        (saved(HEAD) | factors("lm_head", 3, 12, 31), {"bias": "all"}, "bias must be 'none' here"),
    ],
    ids=["rows", "tokens", "absent", "another", "biases"],
)
def test_modules_that_are_not_this_models_are_refused(
    held: dict[str, np.ndarray], fields: dict[str, Any], message: str, tmp_path: Path
) -> None:
    write_base(tmp_path / "base", LLAMA)
    with pytest.raises(CheckpointError, match=message):
        merge(tmp_path / "base", write_adapter(tmp_path / "tuned", held, **fields))
