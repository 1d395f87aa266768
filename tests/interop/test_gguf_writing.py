"""GGUF files that are written: what was stored comes back to the bit, and what llama.cpp cannot compute is
refused before anything is written.
"""

import dataclasses
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_jax.base.tree import Tree, flatten, unflatten
from llm_jax.config.model import ModelConfig
from llm_jax.interop.gguf.header import Place, header_bytes, read_header
from llm_jax.interop.gguf.read_file import open_gguf
from llm_jax.interop.gguf.tensor_names import Origin, redo, undo
from llm_jax.interop.gguf.write_file import plan, rounded, write_gguf
from llm_jax.interop.huggingface.read_config import read_model_config
from llm_jax.interop.huggingface.tensor_names import export_tensors
from llm_jax.interop.huggingface.write_config import write_model_config
from llm_jax.model.decoder import abstract_params
from tests.interop.test_families import GEMMA, GPT2, LLAMA
from tests.interop.test_sources import refusal_of

Kind = gguf.GGMLQuantizationType
SIZES = {"hidden_size": 64, "intermediate_size": 96, "vocab_size": 272, "max_position_embeddings": 24}
SIZES |= {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16, "num_hidden_layers": 2}
WINDOWS = SIZES | {"num_hidden_layers": 7, "query_pre_attn_scalar": 16, "sliding_window": 8}
CAPS = {"attn_logit_softcapping": 40.0, "final_logit_softcapping": 20.0}
LINEAR = {"rope_type": "linear", "factor": 4.0, "rope_theta": 9000.0}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 6, "rope_theta": 9.0}
LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
LLAMA3 |= {"original_max_position_embeddings": 8192, "rope_theta": 500000.0}
# What is written as GGUF, by Hugging Face's words.
MODELS: dict[str, dict[str, Any]] = {
    "llama": LLAMA | SIZES,
    "llama, tied, biases": LLAMA
    | SIZES
    | {"tie_word_embeddings": True, "attention_bias": True, "mlp_bias": True},
    "llama, linear": LLAMA | SIZES | {"rope_theta": None, "rope_parameters": LINEAR},
    "llama, yarn": LLAMA | SIZES | {"rope_theta": None, "rope_parameters": YARN},
    "llama, llama3": LLAMA | SIZES | {"rope_theta": None, "rope_parameters": LLAMA3},
    "qwen2": LLAMA | SIZES | {"model_type": "qwen2"},
    "qwen3": LLAMA | SIZES | {"model_type": "qwen3", "tie_word_embeddings": True},
    "gemma2": GEMMA | WINDOWS | CAPS | {"model_type": "gemma2"},
    "gemma3": GEMMA | WINDOWS | {"final_logit_softcapping": 20.0},
    "gemma3, every second": GEMMA | WINDOWS | {"sliding_window_pattern": 2, "rope_local_base_freq": 700.0},
    "gpt2": GPT2 | {"n_embd": 64, "n_head": 4, "n_inner": 96, "vocab_size": 272, "n_positions": 24},
    "gpt2, untied": GPT2 | {"n_embd": 64, "n_head": 4, "vocab_size": 272, "tie_word_embeddings": False},
}


def random_params(config: ModelConfig, size: float = 0.3) -> Tree:
    """Norms and biases too, where a swapped name would hide otherwise."""
    rng = np.random.default_rng(0)
    return unflatten(
        {
            path: (size * rng.standard_normal(leaf.shape)).astype(leaf.dtype)
            for path, leaf in flatten(abstract_params(config))
        }
    )


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "q8_0"])
@pytest.mark.parametrize("name", MODELS)
def test_what_was_stored_comes_back_to_the_bit(name: str, dtype: str, tmp_path: Path) -> None:
    config = read_model_config(MODELS[name])
    params, fields = random_params(config), write_model_config(config)
    made = plan(fields, config, dtype)
    tensors = dict(export_tensors(fields["model_type"], config, params))
    write_gguf(tmp_path / "m.gguf", made, {"tokenizer.ggml.model": "no_vocab"}, iter(tensors.items()))
    found = open_gguf(tmp_path / "m.gguf")
    assert read_model_config(found.config) == read_model_config(fields)
    assert found.shapes == {tensor: array.shape for tensor, array in tensors.items()}
    for tensor, array in tensors.items():
        read = found.read(tensor)
        np.testing.assert_array_equal(read, rounded(array, made.stored[tensor]), err_msg=tensor)
        if array.ndim == 1 or dtype == "float32":
            wanted = (array + np.float32(1)) - np.float32(1) if made.stored[tensor].origin.plus_one else array
            np.testing.assert_array_equal(read, wanted, err_msg=tensor)
        assert np.abs(read - array).max() < 0.01
    assert not made.without_blocks()


@pytest.mark.parametrize("dtype", ["float32", "q8_0"])
def test_llama_cpps_own_reader_reads_the_file_alike(dtype: str, tmp_path: Path) -> None:
    config = read_model_config(MODELS["llama"])
    fields = write_model_config(config)
    made = plan(fields, config, dtype)
    tensors = export_tensors("llama", config, random_params(config))
    settings = {"general.name": "tiny", "tokenizer.ggml.merges": [], "tokenizer.ggml.tokens": ["a", "漢"]}
    write_gguf(tmp_path / "m.gguf", made, settings, tensors)
    read = gguf.GGUFReader(tmp_path / "m.gguf")
    assert read.get_field("general.name").contents() == "tiny"
    assert read.get_field("tokenizer.ggml.tokens").contents() == ["a", "漢"]
    assert read.get_field("llama.attention.layer_norm_rms_epsilon").contents() == np.float32(1e-6)
    source = open_gguf(tmp_path / "m.gguf")
    found = {tensor.name: tensor for tensor in read.tensors}
    norm = found["blk.0.attn_norm.weight"]
    assert norm.tensor_type == Kind.F32
    down = found["blk.1.ffn_down.weight"]
    theirs = gguf.dequantize(np.asarray(down.data), down.tensor_type)
    np.testing.assert_array_equal(source.read("model.layers.1.mlp.down_proj.weight"), theirs)


SETTING = st.one_of(
    st.booleans(),
    st.integers(0, 2**32 - 1),
    st.floats(width=32, allow_nan=False, allow_infinity=False).map(
        lambda number: float(str(np.float32(number)))
    ),
    st.text(),
    st.lists(st.text(), max_size=4),
    st.lists(st.integers(-(2**31), 2**31 - 1), min_size=1).map(lambda numbers: np.array(numbers, np.int32)),
)


@settings(max_examples=100, deadline=None)
@given(
    values=st.dictionaries(st.text(min_size=1).map("x.".__add__), SETTING, max_size=5),
    shapes=st.lists(st.lists(st.integers(1, 9), min_size=1, max_size=4).map(tuple), max_size=3),
)
def test_a_header_reads_back_as_it_was_written(
    tmp_path_factory: pytest.TempPathFactory, values: dict[str, Any], shapes: list[tuple[int, ...]]
) -> None:
    places = {f"t{number}": Place(shape, number, 32 * number) for number, shape in enumerate(shapes)}
    raw = header_bytes(values, places)
    path = tmp_path_factory.mktemp("headers") / "h"
    path.write_bytes(raw)
    with path.open("rb") as file:
        header = read_header(file, len(raw))
    assert header.places == {n: place._replace(offset=len(raw) + place.offset) for n, place in places.items()}
    assert header.settings.keys() == values.keys()
    for key, value in values.items():
        np.testing.assert_array_equal(header.settings[key], value)
        assert isinstance(header.settings[key], type(value))


@pytest.mark.parametrize(
    "origin",
    [
        Origin("a", (8, 6), paired_heads=2),
        Origin("b", (8,), paired_heads=2),
        Origin("c", (8, 6), transposed=True),
    ],
    ids=["matrix", "bias", "transposed"],
)
def test_what_is_done_to_a_tensor_is_undone(origin: Origin) -> None:
    tensor = np.random.default_rng(0).standard_normal(origin.shape).astype(np.float32)
    done = redo(tensor, origin)
    assert done.shape == origin.stored_shape
    assert not np.array_equal(done.ravel(), tensor.ravel())
    np.testing.assert_array_equal(undo(done, origin), tensor)


def test_rows_that_blocks_do_not_fit_are_float16(tmp_path: Path) -> None:
    config = read_model_config(LLAMA | SIZES | {"intermediate_size": 40})
    fields = write_model_config(config)
    made = plan(fields, config, "q8_0")
    assert made.without_blocks() == ["blk.0.ffn_down.weight", "blk.1.ffn_down.weight"]
    tensors = dict(export_tensors("llama", config, random_params(config)))
    write_gguf(tmp_path / "m.gguf", made, {}, iter(tensors.items()))
    name = "model.layers.0.mlp.down_proj.weight"
    np.testing.assert_array_equal(
        open_gguf(tmp_path / "m.gguf").read(name), tensors[name].astype(np.float16).astype(np.float32)
    )


def other(name: str, **changes: Any) -> ModelConfig:
    return dataclasses.replace(read_model_config(MODELS[name]), **changes)


REFUSED: dict[str, tuple[ModelConfig, str]] = {
    "another family": (other("llama", norm_place="after", qk_norm="all_heads"), "which is a olmo2"),
    "a window": (other("llama", sliding_window=8), "which is a mistral"),
    "windows in Qwen": (other("qwen2", sliding_window=8), "qwen2 has not this model's sliding_window"),
    "an activation": (other("llama", activation="gelu"), "llama has not this model's activation"),
    "biases in Qwen 3": (other("qwen3", qkv_bias=True, output_bias=True), "model's qkv_bias, output_bias"),
    "a scale": (other("gemma2", attention_scale=0.5), "gemma2 has not this model's attention_scale"),
    "no caps in Gemma 2": (other("gemma2", attention_cap=0.0), "gemma2 has not this model's attention_cap"),
    "exact GELU": (other("gpt2", activation="gelu_exact"), "gpt2 has not this model's activation"),
    "another scaling": (
        other("llama, llama3", rotary=dataclasses.replace(other("llama, llama3").rotary, fast_turns=5.0)),
        "llama has not this model's rotary",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_llama_cpp_does_not_compute_is_refused_by_name(name: str) -> None:
    config, message = REFUSED[name]
    assert message in refusal_of(lambda: plan(write_model_config(config), config, "float32"))


def test_numbers_beyond_float16_are_refused_and_not_written_as_infinite(tmp_path: Path) -> None:
    config = other("llama")
    tensors = dict(export_tensors("llama", config, random_params(config, size=1e8)))
    for dtype in ("float16", "q8_0"):
        made = plan(write_model_config(config), config, dtype)
        message = refusal_of(
            lambda made=made: write_gguf(tmp_path / "m.gguf", made, {}, iter(tensors.items()))
        )
        assert "token_embd.weight must hold numbers that float16 has" in message
