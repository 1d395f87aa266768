"""Folders and files as people have them: weights behind links, buffers of any type, and what to do about
those of another kind, in one line.
"""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from llm_jax.base.errors import CheckpointError
from llm_jax.interop.huggingface.read_config import read_model_config
from llm_jax.interop.huggingface.read_directory import open_directory
from llm_jax.interop.huggingface.tensor_names import export_tensors, import_params
from tests.interop.test_adapters import QUERY, factors, merge, write_adapter, write_base
from tests.interop.test_convert import byte_level_tokenizer, run_convert
from tests.interop.test_families import GPT2, LLAMA
from tests.interop.test_sources import INDEX, TENSORS, sharded, whole


def linked(folder: Path, store: Path) -> Path:
    """The folder with each file moved to a store, under another name, and a link in its place."""
    store.mkdir()
    for number, file in enumerate(sorted(folder.iterdir())):
        file.rename(store / f"{number}0a1b2c")
        file.symlink_to(os.path.relpath(store / f"{number}0a1b2c", folder))
    return folder


@pytest.mark.parametrize("layout", [whole, sharded])
def test_files_may_lie_where_links_lead(layout: Callable[[Path], Path], tmp_path: Path) -> None:
    folder = linked(layout(tmp_path / "local_dir"), tmp_path / "disk")
    source = open_directory(folder)
    for name, tensor in TENSORS.items():
        assert source.read(name).tobytes() == tensor.tobytes()
    (tmp_path / "shortcut").symlink_to(folder, target_is_directory=True)
    assert open_directory(tmp_path / "shortcut").shapes == source.shapes


def test_an_adapter_may_lie_where_links_lead(tmp_path: Path) -> None:
    write_base(tmp_path / "base", LLAMA)
    adapter = linked(write_adapter(tmp_path / "tuned", factors(QUERY, 3, 12, 12)), tmp_path / "disk")
    assert merge(tmp_path / "base", adapter).read(f"{QUERY}.weight").dtype == np.float32


def test_an_index_still_names_files_beside_it_alone(tmp_path: Path) -> None:
    folder = sharded(tmp_path / "model")
    homes = json.loads((folder / INDEX).read_text())["weight_map"]
    (folder / INDEX).write_text(json.dumps({"weight_map": homes | {"scale": "../model.safetensors"}}))
    with pytest.raises(CheckpointError, match=r"must name a \.safetensors file beside it for 'scale'"):
        open_directory(folder)


def test_a_link_that_leads_nowhere_is_named_with_what_it_leads_to(tmp_path: Path) -> None:
    folder = linked(whole(tmp_path / "model"), tmp_path / "disk")
    (tmp_path / "disk").rename(tmp_path / "unmounted")
    with pytest.raises(CheckpointError) as refusal:
        open_directory(folder)
    assert str(refusal.value) == (
        f"{folder / 'config.json'} is a link to '../disk/00a1b2c', which is not there; fetch it again"
    )


BUFFERS: dict[str, np.ndarray] = {
    "transformer.h.0.attn.bias": np.tril(np.ones((1, 1, 16, 16), np.bool_)),
    "transformer.h.1.attn.bias": np.tril(np.ones((1, 1, 16, 16), np.uint8)),
    "transformer.h.0.attn.masked_bias": np.asarray(-10000, np.int64),
    "transformer.h.1.attn.masked_bias": np.asarray(-1e4, np.float16),
}
FREQUENCIES: dict[str, np.ndarray] = {
    "model.layers.0.self_attn.rotary_emb.inv_freq": np.ones(3, np.float64),
    "model.layers.1.self_attn.rotary_emb.cos_cached": np.ones((1, 1, 4, 0), np.float32),
    "model.rotary_emb.inv_freq": np.ones(3, np.float32),
    "model.rotary_emb_local.original_inv_freq": np.ones(3, np.int32),
}


@pytest.mark.parametrize(
    ("config", "buffers", "bare"),
    [
        (GPT2, BUFFERS, ""),
        (GPT2, BUFFERS, "transformer."),
        (LLAMA, FREQUENCIES, ""),
        (LLAMA, FREQUENCIES, "model."),
    ],
    ids=["GPT-2", "GPT-2, bare", "Llama", "Llama, bare"],
)
def test_buffers_of_any_type_are_set_aside(
    config: dict[str, Any], buffers: dict[str, np.ndarray], bare: str, tmp_path: Path
) -> None:
    tensors = write_base(tmp_path / "model", config)
    held = {name.removeprefix(bare): tensor for name, tensor in (tensors | buffers).items()}
    save_file(held, tmp_path / "model" / "model.safetensors")
    found, model = open_directory(tmp_path / "model"), read_model_config(config)
    assert len(found.shapes) == len(tensors)
    params = import_params(config["model_type"], model, found.shapes, found.read)
    for name, tensor in export_tensors(config["model_type"], model, params):
        np.testing.assert_array_equal(tensor, tensors[name], err_msg=name)


def test_a_parameter_of_another_type_is_still_refused(tmp_path: Path) -> None:
    tensors = write_base(tmp_path / "model", GPT2)
    name = "transformer.h.0.attn.c_attn.bias"
    save_file(tensors | {name: np.ones(36, np.bool_)}, tmp_path / "model" / "model.safetensors")
    with pytest.raises(
        CheckpointError, match=f"tensor '{name}' must be float32, float16 or bfloat16, got BOOL"
    ):
        open_directory(tmp_path / "model")


def quantized(method: str) -> Callable[[Path], Path]:
    def change(base: Path) -> Path:
        config = json.loads((base / "config.json").read_text())
        more = {"quantization_config": {"quant_method": method, "bits": 4}}
        (base / "config.json").write_text(json.dumps(config | more))
        codes = {"model.layers.0.mlp.up_proj.weight": np.ones((4, 1), np.uint8)}
        save_file(codes, base / "model.safetensors")
        return base

    return change


def only_an_adapter(base: Path) -> Path:
    return write_adapter(base.parent / "tuned", factors(QUERY, 3, 12, 12))


def an_adapter_with_the_models_configuration(base: Path) -> Path:
    adapter = only_an_adapter(base)
    (base / "config.json").rename(adapter / "config.json")
    return adapter


def without_config(base: Path) -> Path:
    (base / "config.json").unlink()
    return base


def a_gguf_inside(base: Path) -> Path:
    for file in base.iterdir():
        file.unlink()
    (base / "model-q8_0.gguf").write_bytes(b"GGUF")
    return base


def a_place_of_the_hubs_cache(base: Path) -> Path:
    (base.parent / "models--a--b" / "snapshots").mkdir(parents=True)
    base.rename(base.parent / "models--a--b" / "snapshots" / "0a1b")
    return base.parent / "models--a--b"


def the_weights_alone(base: Path) -> Path:
    return base / "model.safetensors"


def an_adapters_weights_alone(base: Path) -> Path:
    return only_an_adapter(base) / "adapter_model.safetensors"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            quantized("bitsandbytes"),
            "quantized with 'bitsandbytes', which is not supported; load it in transformers",
        ),
        (
            quantized("gptq"),
            "quantized with 'gptq', which is not supported; take the repository that it was made",
        ),
        (quantized("awq"), "or a .gguf file of the model"),
        (quantized("fp8"), "quantized with 'fp8', which is not supported; take the repository"),
        (
            only_an_adapter,
            "tuned holds only a LoRA adapter; give the folder of the model that it was trained on",
        ),
        (
            an_adapter_with_the_models_configuration,
            "tuned holds only a LoRA adapter; give the folder of the model",
        ),
        (
            without_config,
            "base must hold config.json beside 'model.safetensors'; copy it, and tokenizer.json, from",
        ),
        (a_gguf_inside, "has a GGUF file; give that: "),
        (a_place_of_the_hubs_cache, "give the snapshot in it: "),
        (
            the_weights_alone,
            "holds weights of a Hugging Face model, which need the files beside them; give the fol",
        ),
        (an_adapters_weights_alone, "holds a LoRA adapter; give its model's folder, and --adapter "),
    ],
    ids=lambda value: getattr(value, "__name__", "") if callable(value) else "",
)
def test_what_to_do_about_another_kind_is_one_line(
    change: Callable[[Path], Path], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_base(tmp_path / "base", LLAMA)
    run_convert(["import", str(change(tmp_path / "base")), str(tmp_path / "ours")], status=4)
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
    assert not (tmp_path / "ours").exists()


def test_a_model_that_is_given_for_an_adapter_is_told_apart(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = tmp_path / "base"
    write_base(base, LLAMA)
    byte_level_tokenizer().save(str(base / "tokenizer.json"))
    run_convert(["import", str(base), str(tmp_path / "ours"), "--adapter", str(base)], status=4)
    (line,) = capsys.readouterr().err.splitlines()
    assert "must hold adapter_config.json, but is a model; give the folder that peft saved" in line
