"""How weights come in: every checkpoint that is written is read again and compared."""

import dataclasses
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

import jax
import numpy as np
from rich.progress import track

from llm_jax.config import Config
from llm_jax.data.chat_format import ChatFormat
from llm_jax.data.file_tokenizer import FileTokenizer
from llm_jax.data.gguf_tokenizer import gguf_tokenizer_json, without_pre
from llm_jax.data.language_check import check_tokens, require_same_pieces
from llm_jax.data.tokenizers import ByteTokenizer, Tokenizer, named_tokenizer
from llm_jax.errors import CheckpointError, UserError
from llm_jax.interop import torch_tutorial
from llm_jax.interop.adapters import adapter_digest, merge_adapter
from llm_jax.interop.chat_files import read_directory_chat, read_folder_template, read_gguf_chat
from llm_jax.interop.families import read_model_config
from llm_jax.interop.gguf_file import open_gguf
from llm_jax.interop.huggingface import import_params, require_tensors
from llm_jax.interop.huggingface_directory import open_directory
from llm_jax.interop.sources import Source
from llm_jax.interop.state_dict import read_state_dict_file
from llm_jax.interop.tokenizer_files import read_directory_tokenizer, read_vocabulary_file
from llm_jax.model.decoder import abstract_params
from llm_jax.model_config import ModelConfig
from llm_jax.settings import to_dict
from llm_jax.trained import load
from llm_jax.training.checkpoint import Checkpoints
from llm_jax.training.record import versions
from llm_jax.tree import Tree, count_parameters, flatten

_Item = TypeVar("_Item")


def import_model(
    source: Path, out: Path, param_dtype: str, adapter: Path | None = None, tokenizer: Path | None = None
) -> str:
    """Makes a directory for `load` of a Hugging Face directory or a GGUF file; gives a line for the user.

    Args:
        source: the directory or file.
        out: the directory to make.
        param_dtype: how weights are stored.
        adapter: a directory with a LoRA adapter to merge into the weights.
        tokenizer: a directory or file with the tokenizer, where it is not the source's own.

    Raises:
        CheckpointError, DataError: weights, tokenizer or adapter are damaged, or of a kind that is not known.
    """
    found = open_directory(source) if source.is_dir() else open_gguf(source)
    model = dataclasses.replace(read_model_config(found.config), param_dtype=param_dtype)
    language = _read_language(source, found, tokenizer, model.vocab_size)
    if adapter is not None:
        found = merge_adapter(found, adapter, model)
    family, count = found.config["model_type"], count_parameters(abstract_params(model))
    _save(out, model, import_params(family, model, found.shapes, found.read, shown), *language, adapter)
    # Only now, with nothing else in memory: what was written, beside the source, one tensor at a time.
    require_tensors(family, model, load(out).params, found.shapes, found.read, shown)
    merged = "" if adapter is None else f", the adapter {adapter} merged into them"
    return f"imported {count:,} parameters into {out}{merged}; read again, every bit is equal"


def _read_language(
    source: Path, found: Source, given: Path | None, vocab_size: int
) -> tuple[FileTokenizer, ChatFormat]:
    """Tokenizer and chat of a model, or those that are given in place of its own."""
    folder = given if given is not None and given.is_dir() else source if source.is_dir() else None
    file = given if folder != given else None
    remark = None
    if folder is not None:
        tokenizer, remark = read_directory_tokenizer(folder, file)
    elif file is not None:
        tokenizer = read_vocabulary_file(file)
    else:
        tokenizer = FileTokenizer(gguf_tokenizer_json(found.tokenizer))
        remark = without_pre(found.tokenizer)
    if source.is_dir():
        chat = read_directory_chat(source, found.config, tokenizer.token_id, vocab_size, folder)
    else:
        chat = read_gguf_chat(found.tokenizer, vocab_size)
        if given is not None:
            require_same_pieces(tokenizer, found.tokenizer)
        if chat.template is None and folder is not None:
            chat = dataclasses.replace(chat, template=read_folder_template(folder))
    for line in filter(None, (remark, check_tokens(tokenizer, chat, vocab_size, str(folder or source)))):
        print(f"warning: {line}", file=sys.stderr)
    return tokenizer, chat


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
    require_equal(load(out).params, params, out)
    count = sum(tensor.size for name, tensor in state_dict.items() if not name.endswith("tril"))
    return f"imported {count:,} parameters into {out}; read again, every bit is equal"


def _save(
    out: Path,
    model: ModelConfig,
    params: Tree,
    tokenizer: Tokenizer,
    chat: ChatFormat | None = None,
    adapter: Path | None = None,
) -> None:
    about = {
        "config": to_dict(Config(model=model)),
        "tokenizer": tokenizer.to_dict(),
        "data_fingerprint": None,
        "versions": versions(),
    }
    if chat is not None:
        about["chat"] = chat.to_dict()
    if adapter is not None:
        about["adapter"] = {"name": adapter.resolve().name, "sha256": adapter_digest(adapter)}
    with Checkpoints(out / "checkpoints", keep=2, about=about) as checkpoints:
        # device_put takes aligned memory of a CPU as it is; jnp.asarray would copy it.
        checkpoints.save(0, {"params": jax.device_put(params)}, metrics={}, score=None)


def shown(parts: Iterator[_Item], count: int) -> Iterator[_Item]:
    """The same, with a bar of how many of them are done."""
    return iter(track(parts, "tensors", total=count, transient=True))


def require_equal(got: Tree, wanted: Tree, where: Path) -> None:
    """CheckpointError for leaves of which a bit differs."""
    others = dict(flatten(wanted))
    if odd := [
        path for path, leaf in flatten(got) if not np.array_equal(np.asarray(leaf), np.asarray(others[path]))
    ]:
        raise CheckpointError(f"{where} does not hold the bits that were written: {odd[0]} differs")
