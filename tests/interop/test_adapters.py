"""LoRA adapters: what is merged is what the formula says, one tensor at a time; all else is refused."""

import dataclasses
import json
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file

import llm_jax
from llm_jax.base.errors import CheckpointError
from llm_jax.base.tree import flatten
from llm_jax.interop import import_model
from llm_jax.interop.huggingface.read_config import read_model_config
from llm_jax.interop.huggingface.read_directory import open_directory
from llm_jax.interop.huggingface.tensor_names import import_params, parts
from llm_jax.interop.peft import merge as merging
from llm_jax.interop.peft.merge import merge_adapter
from llm_jax.interop.source import Source
from tests.interop.test_convert import byte_level_tokenizer, require_equal, run_convert, write_gguf
from tests.interop.test_families import GPT2, LLAMA

CONFIG: dict[str, Any] = {"peft_type": "LORA", "r": 3, "lora_alpha": 5, "target_modules": ["q_proj"]}
WEIGHTS = "adapter_model.safetensors"
QUERY = "model.layers.1.self_attn.q_proj"


def factors(module: str, rank: int, inputs: int, outputs: int) -> dict[str, np.ndarray]:
    """A and B of a linear layer, as peft names them."""
    random = np.random.default_rng(sum(module.encode()))
    return {
        f"base_model.model.{module}.lora_A.weight": random.normal(size=(rank, inputs)).astype(np.float32),
        f"base_model.model.{module}.lora_B.weight": random.normal(size=(outputs, rank)).astype(np.float32),
    }


def write_base(folder: Path, config_json: dict[str, Any], dtype: Any = np.float32) -> dict[str, np.ndarray]:
    """A directory with random weights, and its tensors."""
    folder.mkdir()
    random = np.random.default_rng(0)
    wanted = parts(config_json["model_type"], read_model_config(config_json))
    tensors = {part.name: random.normal(size=part.shape).astype(dtype) for part in wanted}
    save_file(tensors, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config_json))
    return tensors


def write_adapter(folder: Path, tensors: dict[str, np.ndarray], **fields: Any) -> Path:
    folder.mkdir(exist_ok=True)
    save_file(tensors, folder / WEIGHTS)
    (folder / "adapter_config.json").write_text(json.dumps(CONFIG | fields))
    return folder


def merge(base: Path, adapter: Path) -> Source:
    source = open_directory(base)
    return merge_adapter(source, adapter, read_model_config(source.config))[0]


def require_merged(source: Source, tensors: dict[str, np.ndarray], products: dict[str, np.ndarray]) -> None:
    """These tensors have gained these products, and the others are as they were."""
    for name, tensor in tensors.items():
        got = source.read(name)
        if name not in products:
            assert (got.dtype, got.tobytes()) == (tensor.dtype, tensor.tobytes()), name
            continue
        assert got.dtype == np.float32
        np.testing.assert_allclose(got, tensor.astype(np.float64) + products[name], rtol=0, atol=2e-5)


def product(tensors: dict[str, np.ndarray], scale: float) -> np.ndarray:
    a, b = (tensor.astype(np.float64) for tensor in tensors.values())
    return scale * b @ a


@pytest.mark.parametrize("dtype", [np.float32, ml_dtypes.bfloat16], ids=["float32", "bfloat16"])
def test_a_matrix_gains_the_product_of_its_factors(tmp_path: Path, dtype: Any) -> None:
    tensors = write_base(tmp_path / "base", LLAMA, dtype)
    query, down = factors(QUERY, 3, 12, 12), factors("model.layers.0.mlp.down_proj", 3, 20, 12)
    adapter = write_adapter(tmp_path / "adapter", query | down, use_rslora=False)
    products = {f"{QUERY}.weight": product(query, 5 / 3)}
    products["model.layers.0.mlp.down_proj.weight"] = product(down, 5 / 3)
    require_merged(merge(tmp_path / "base", adapter), tensors, products)


@pytest.mark.parametrize("fan_in_fan_out", [False, True])  # peft's Conv1D is what it is, whatever this says
def test_matrices_of_gpt2_lie_the_other_way(tmp_path: Path, fan_in_fan_out: bool) -> None:
    tensors = write_base(tmp_path / "base", GPT2)
    square = factors("transformer.h.1.attn.c_proj", 3, 12, 12)
    adapter = write_adapter(tmp_path / "adapter", square, fan_in_fan_out=fan_in_fan_out)
    wanted = product(square, 5 / 3).T
    require_merged(merge(tmp_path / "base", adapter), tensors, {"transformer.h.1.attn.c_proj.weight": wanted})


def test_files_of_a_bare_model_are_known_by_their_shorter_names(tmp_path: Path) -> None:
    tensors = write_base(tmp_path / "base", GPT2)
    bare = {name.removeprefix("transformer."): tensor for name, tensor in tensors.items()}
    save_file(bare, tmp_path / "base" / "model.safetensors")
    up = factors("transformer.h.0.mlp.c_fc", 3, 12, 48)
    found = merge(tmp_path / "base", write_adapter(tmp_path / "adapter", up))
    require_merged(found, bare, {"h.0.mlp.c_fc.weight": product(up, 5 / 3).T})


def test_an_embedding_has_factors_of_its_own_and_brings_its_matrix_along(tmp_path: Path) -> None:
    tensors = write_base(tmp_path / "base", LLAMA)
    a, b = factors("model.embed_tokens", 3, 31, 12).values()
    module = "base_model.model.model.embed_tokens"
    brought = tensors["model.embed_tokens.weight"] + 1
    held = {f"{module}.lora_embedding_A": a, f"{module}.lora_embedding_B": b}
    plain = merge(tmp_path / "base", write_adapter(tmp_path / "plain", held))
    wanted = product(held, 5 / 3).T
    require_merged(plain, tensors, {"model.embed_tokens.weight": wanted})
    adapter = write_adapter(tmp_path / "adapter", held | {f"{module}.base_layer.weight": brought})
    require_merged(merge(tmp_path / "base", adapter), tensors, {"model.embed_tokens.weight": wanted + 1})


def test_an_adapter_is_read_tensor_by_tensor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tensors = write_base(tmp_path / "base", LLAMA)
    adapter = write_adapter(tmp_path / "adapter", factors(QUERY, 3, 12, 12))
    read: list[str] = []
    own = merging.read_tensor
    monkeypatch.setattr(merging, "read_tensor", lambda *words: read.append(words[1]) or own(*words))
    found = merge(tmp_path / "base", adapter)
    assert not read
    for name in tensors:
        read.clear()
        found.read(name)
        assert len(read) == (2 if name == f"{QUERY}.weight" else 0)


@pytest.fixture
def base(tmp_path: Path) -> Path:
    write_base(tmp_path / "base", LLAMA | {"vocab_size": 272, "hidden_size": 24})
    byte_level_tokenizer().save(str(tmp_path / "base" / "tokenizer.json"))
    return tmp_path / "base"


def test_the_command_merges_into_a_directory_and_into_a_gguf_file_alike(base: Path, tmp_path: Path) -> None:
    query = factors(QUERY, 3, 24, 24)
    adapter = str(write_adapter(tmp_path / "tuned", query, lora_dropout=0.1, target_modules="all-linear"))
    run_convert(["import", str(base), str(tmp_path / "ours"), "--adapter", adapter])
    ours = llm_jax.load(tmp_path / "ours")
    plain = open_directory(base)
    config = read_model_config(plain.config)
    params = import_params("llama", config, plain.shapes, plain.read)
    write_gguf(tmp_path / "model.gguf", plain.config, params)
    params["blocks"]["query"]["kernel"][1] += product(query, 5 / 3).T.reshape(24, 6, 4).astype(np.float32)
    for path, leaf in flatten(ours.params):
        np.testing.assert_allclose(leaf, dict(flatten(params))[path], rtol=0, atol=2e-6, err_msg=path)
    assert ours.about["adapter"]["name"] == "tuned"
    run_convert(["import", str(tmp_path / "model.gguf"), str(tmp_path / "again"), "--adapter", adapter])
    again = llm_jax.load(tmp_path / "again")
    require_equal(again.params, ours.params)
    assert again.about["adapter"] == ours.about["adapter"]
    half = ["import", str(base), str(tmp_path / "half"), "--adapter", adapter, "--param_dtype", "bfloat16"]
    run_convert(half)
    for path, leaf in flatten(llm_jax.load(tmp_path / "half").params):
        assert leaf.tobytes() == np.asarray(dict(flatten(ours.params))[path]).astype(leaf.dtype).tobytes()


def test_what_was_written_is_held_against_the_merged_weights(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def damaged(out: Path) -> llm_jax.LanguageModel:
        found = llm_jax.load(out)
        blocks = found.params["blocks"]
        kernel = blocks["query"]["kernel"]
        other = kernel.at[1, 0, 0, 0].set(np.nextafter(kernel[1, 0, 0, 0], 9))
        return dataclasses.replace(
            found, params=found.params | {"blocks": blocks | {"query": {"kernel": other}}}
        )

    monkeypatch.setattr(import_model, "load", damaged)
    adapter = write_adapter(tmp_path / "adapter", factors(QUERY, 3, 24, 24))
    run_convert(["import", str(base), str(tmp_path / "ours"), "--adapter", str(adapter)], status=4)
    assert f"what was written differs from {QUERY}.weight" in capsys.readouterr().err


A, B = (f"base_model.model.{QUERY}.lora_{factor}.weight" for factor in "AB")
NORM = factors("model.norm", 3, 12, 12)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({B: None}, f"must hold {B}, the other factor for {QUERY}"),
        ({A: None}, f"must hold {A}, the other factor for {QUERY}"),
        ({A: np.ones((4, 12), np.float32)}, f"{A} must have shape (3, 12), got '(4, 12)'"),
        ({B: np.ones((13, 3), np.float32)}, f"{B} must have shape (12, 3), got '(13, 3)'"),
        ({B: np.ones(36, np.float32)}, f"{B} must have shape (12, 3), got '(36,)'"),
        ({A: np.full((3, 12), np.nan, np.float32)}, f"{A} must hold finite numbers alone"),
        ({B: np.full((12, 3), np.inf, np.float32)}, f"{B} must hold finite numbers alone"),
        ({A: np.ones((3, 12), np.int32)}, "must be float32, float16 or bfloat16, got I32"),
        (factors("model.layers.2.self_attn.q_proj", 3, 12, 12), "layers.2.self_attn.q_proj.lora_A.weight'"),
        (factors("model.embed_tokens", 3, 31, 12), "embed_tokens.lora_A.weight'"),
        (NORM, "but has 'base_model.model.model.norm.lora_A.weight'"),
        (
            {"extra": np.ones(1, np.float32)},
            "must hold tensors for modules of this model alone, but has 'extra'",
        ),
        ({f"base_model.model.{QUERY}.lora_B.bias": np.ones(12, np.float32)}, "q_proj.lora_B.bias'"),
        ({f"base_model.model.{QUERY}.lora_magnitude_vector": np.ones(12, np.float32)}, "magnitude_vector'"),
    ],
    ids=[
        *("no B", "no A", "rank", "outputs", "vector", "nan", "infinite", "integers"),
        *("layer", "embedding", "norm", "other", "bias", "magnitude"),
    ],
)
def test_tensors_that_are_no_factors_of_this_model_are_refused_by_name(
    tmp_path: Path, change: dict[str, np.ndarray | None], message: str
) -> None:
    write_base(tmp_path / "base", LLAMA)
    tensors = {
        name: tensor for name, tensor in (factors(QUERY, 3, 12, 12) | change).items() if tensor is not None
    }
    with pytest.raises(CheckpointError, match=re.escape(message)):
        merge(tmp_path / "base", write_adapter(tmp_path / "adapter", tensors)).read(f"{QUERY}.weight")


def test_a_product_that_is_not_finite_is_refused(tmp_path: Path) -> None:
    write_base(tmp_path / "base", LLAMA)
    large = {name: tensor * np.float32(1e30) for name, tensor in factors(QUERY, 3, 12, 12).items()}
    found = merge(tmp_path / "base", write_adapter(tmp_path / "adapter", large))
    with pytest.raises(CheckpointError, match=f"{re.escape(QUERY)}.weight must hold finite numbers alone"):
        import_params("llama", read_model_config(found.config), found.shapes, found.read)


def only_a_pickle(folder: Path) -> None:
    (folder / WEIGHTS).unlink()
    (folder / "adapter_model.bin").write_bytes(pickle.dumps({}))


def cut(folder: Path) -> None:
    (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:-1])


def link(folder: Path) -> None:
    (folder / WEIGHTS).unlink()
    (folder / WEIGHTS).symlink_to(folder.parent / "elsewhere")


def nothing(folder: Path) -> None:
    (folder / WEIGHTS).unlink()


def no_config(folder: Path) -> None:
    (folder / "adapter_config.json").unlink()


def no_folder(folder: Path) -> None:
    folder.rename(folder.with_name("moved"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (only_a_pickle, "has only 'adapter_model.bin', a pickle, which can run any code and is never read"),
        (cut, "adapter_model.safetensors is damaged"),
        (link, "which is not there; fetch it again"),
        (nothing, "must hold adapter_model.safetensors"),
        (no_config, "must hold adapter_config.json, as peft saves it"),
        (no_folder, "must be a directory with adapter_config.json and adapter_model.safetensors"),
    ],
)
def test_an_adapters_file_that_is_not_one_is_one_line_and_leaves_nothing(
    base: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    change: Callable[[Path], None],
    message: str,
) -> None:
    adapter = write_adapter(tmp_path / "adapter", factors(QUERY, 3, 24, 24))
    change(adapter)
    run_convert(["import", str(base), str(tmp_path / "ours"), "--adapter", str(adapter)], status=4)
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
    assert not (tmp_path / "ours").exists()


def test_a_state_dict_takes_no_adapter(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_convert(["import", "model.safetensors", str(tmp_path / "ours"), "--adapter", "tuned"], status=2)
    assert "must be a directory or a .gguf file for --adapter; leave it out" in capsys.readouterr().err
