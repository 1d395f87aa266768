"""How weights come in and go out: every file that is written is read again and compared."""

import dataclasses
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np
from rich.progress import track

from llm_jax.config import Config
from llm_jax.data.file_tokenizer import FileTokenizer, read_tokenizer_file
from llm_jax.data.gguf_tokenizer import gguf_tokenizer_json
from llm_jax.data.tokenizers import ByteTokenizer, Tokenizer, named_tokenizer
from llm_jax.errors import CheckpointError, UserError
from llm_jax.interop import torch_tutorial
from llm_jax.interop.config_json import write_model_config
from llm_jax.interop.families import read_model_config
from llm_jax.interop.gguf_file import open_gguf
from llm_jax.interop.huggingface import Part, import_params
from llm_jax.interop.huggingface_directory import open_directory
from llm_jax.interop.huggingface_writing import write_directory
from llm_jax.interop.state_dict import read_state_dict_file, write_state_dict_file
from llm_jax.model_config import ModelConfig
from llm_jax.settings import to_dict
from llm_jax.trained import Trained, load
from llm_jax.training.checkpoint import Checkpoints
from llm_jax.training.record import versions
from llm_jax.tree import Tree, count_parameters, flatten

_PROMPT = 500  # tokens on which a written model's logits are compared


def import_model(source: Path, out: Path, param_dtype: str) -> str:
    """Makes a directory for `load` of a Hugging Face directory or a GGUF file; gives a line for the user.

    Raises:
        CheckpointError, DataError: weights or tokenizer are damaged, or of a kind that is not known.
    """
    found = open_directory(source) if source.is_dir() else open_gguf(source)
    tokenizer = (
        read_tokenizer_file(source / "tokenizer.json")
        if source.is_dir()
        else FileTokenizer(gguf_tokenizer_json(found.tokenizer))
    )
    model = dataclasses.replace(read_model_config(found.config), param_dtype=param_dtype)
    params = import_params(found.config["model_type"], model, found.shapes, found.read, _shown)
    _save(out, model, params, tokenizer)
    return f"imported {count_parameters(params):,} parameters into {out}; read again, every bit is equal"


def import_tutorial(source: Path, out: Path, tokenizer: str) -> str:
    """Makes a directory for `load` of a state dict of the torch tutorial; gives a line for the user."""
    state_dict = read_state_dict_file(source)
    model = torch_tutorial.infer_config(state_dict)
    params = torch_tutorial.import_params(state_dict, model)
    if odd := [name for name, tensor in state_dict.items() if tensor.dtype != np.float32]:
        raise CheckpointError(
            f"{source} must hold float32 tensors, but {odd[0]} is {state_dict[odd[0]].dtype}"
        )
    chosen = ByteTokenizer() if tokenizer == "bytes" else named_tokenizer(tokenizer)
    if chosen.vocab_size < model.vocab_size:
        raise UserError(
            f"the tokenizer must have the model's {model.vocab_size:,} ids, but {tokenizer} has "
            f"{chosen.vocab_size:,}; give another --tokenizer"
        )
    _save(out, model, params, chosen)
    count = sum(tensor.size for name, tensor in state_dict.items() if not name.endswith("tril"))
    return f"imported {count:,} parameters into {out}; read again, every bit is equal"


def export_tutorial(directory: Path, out: Path) -> str:
    """Writes the torch tutorial's state dict as a .safetensors file; gives a line for the user."""
    if out.suffix != ".safetensors":
        raise UserError(f"the file to write must end in .safetensors, got {out}")
    model = load(directory)
    state_dict = torch_tutorial.export_state_dict(model.params, model.config)

    def check(part: Path) -> None:
        again = torch_tutorial.import_params(read_state_dict_file(part), model.config)
        _require_equal(again, model.params, part)

    write_state_dict_file(state_dict, out, check)
    return f"exported {out} (torch_tutorial); read again, every bit is equal"


def export_huggingface(directory: Path, out: Path) -> str:
    """Writes the directory that transformers loads; gives a line for the user.

    Raises:
        CheckpointError: no family of Hugging Face's computes what this model does.
    """
    model = load(directory)
    config_json = write_model_config(model.config)
    part = out.with_name(out.name + ".part")
    try:
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        write_directory(part, config_json, model.config, model.params)
        if isinstance(model.tokenizer, FileTokenizer):
            content = json.dumps(model.tokenizer.to_dict()["content"], ensure_ascii=False)
            (part / "tokenizer.json").write_text(content, encoding="utf-8")
        _require_same_logits(part, model)
        part.replace(out)
    except OSError as error:
        raise UserError(f"{out} cannot be written: {error}") from None
    finally:
        shutil.rmtree(part, ignore_errors=True)
    without = "" if isinstance(model.tokenizer, FileTokenizer) else " (without a tokenizer.json)"
    family = config_json["model_type"]
    return f"exported {out}{without} as {family}; read again, every bit is equal, and logits agree"


def _save(out: Path, model: ModelConfig, params: Tree, tokenizer: Tokenizer) -> None:
    about = {
        "config": to_dict(Config(model=model)),
        "tokenizer": tokenizer.to_dict(),
        "data_fingerprint": None,
        "versions": versions(),
    }
    with Checkpoints(out / "checkpoints", keep=2, about=about) as checkpoints:
        placed = jax.tree.map(jax.numpy.asarray, params)
        checkpoints.save(0, {"params": placed}, metrics={}, score=None)
    _require_equal(params, load(out).params, out)


def _shown(parts: Iterator[Part], count: int) -> Iterator[Part]:
    return iter(track(parts, "tensors", total=count, transient=True))


def _require_equal(got: Tree, wanted: Tree, where: Path) -> None:
    others = dict(flatten(wanted))
    if odd := [
        path for path, leaf in flatten(got) if not np.array_equal(np.asarray(leaf), np.asarray(others[path]))
    ]:
        raise CheckpointError(f"{where} does not hold the bits that were written: {odd[0]} differs")


def _require_same_logits(folder: Path, model: Trained) -> None:
    """Reads a written directory as a stranger's, and compares bits, and logits under its own config.json."""
    found, ours = open_directory(folder), model.config
    config = dataclasses.replace(
        read_model_config(found.config), param_dtype=ours.param_dtype, dtype=ours.dtype, layers=ours.layers
    )
    params = import_params(found.config["model_type"], config, found.shapes, found.read)
    _require_equal(params, model.params, folder)
    length = min(_PROMPT, ours.context_length)
    prompt = np.random.default_rng(0).integers(0, ours.vocab_size, length)
    wanted = model.logits(prompt)
    got = Trained(config, params, model.tokenizer, {}).logits(prompt)
    if not np.allclose(got, wanted, rtol=1e-5, atol=1e-5 * np.abs(wanted).max()):
        worst = np.abs(got - wanted).max()
        raise CheckpointError(f"{folder} gives other logits than the model, by up to {worst:.2g}")
