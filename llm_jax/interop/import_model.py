"""How weights come in: every checkpoint that is written is read again and compared."""

import dataclasses
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from llm_jax.base.errors import CheckpointError, UserError
from llm_jax.base.terminal import remark
from llm_jax.base.tree import count_parameters
from llm_jax.interop.chat_format import read_directory_chat, read_folder_template, read_gguf_chat
from llm_jax.interop.fields import passed_over, require_ignorable
from llm_jax.interop.gguf.read_file import open_gguf
from llm_jax.interop.huggingface.read_config import config_fields, read_model_config
from llm_jax.interop.huggingface.read_directory import open_directory
from llm_jax.interop.huggingface.tensor_names import import_params, require_tensors
from llm_jax.interop.huggingface.tokenizer_files import read_directory_tokenizer, read_vocabulary_file
from llm_jax.interop.peft.merge import adapter_facts, merge_adapter, read_adapter_fields
from llm_jax.interop.pytorch import tutorial
from llm_jax.interop.pytorch.state_dict import read_state_dict_file
from llm_jax.interop.source import Source
from llm_jax.interop.verify import require_equal, shown
from llm_jax.language_model.model import load
from llm_jax.language_model.save import save_model
from llm_jax.model.decoder import abstract_params
from llm_jax.tokenization.byte_pair import named_tokenizer
from llm_jax.tokenization.chat_format import ChatFormat
from llm_jax.tokenization.from_gguf import gguf_tokenizer_json, without_pre
from llm_jax.tokenization.from_huggingface import FileTokenizer
from llm_jax.tokenization.language_check import check_tokens, require_same_pieces
from llm_jax.tokenization.plain import ByteTokenizer
from llm_jax.tokenization.start_tokens import Named, tokens_around, with_tokens_around


def import_model(
    source: Path,
    out: Path,
    param_dtype: str,
    adapter: Path | None = None,
    given: Path | None = None,
    *,
    ignored: Collection[str] = (),
    add_bos: bool | None = None,
    record: Mapping[str, str] | None = None,
) -> str:
    """Make a directory for `load` of a Hugging Face directory or a GGUF file; give lines for the user: what
    stands before every text, and which fields of configurations were passed over, are two of them.

    Args:
        source: the directory or file.
        out: the directory to make.
        param_dtype: how weights are stored.
        adapter: a directory with a LoRA adapter to merge into the weights.
        given: a directory or file with the tokenizer, where it is not the source's own.
        ignored: fields of config.json and of adapter_config.json to pass over though they are not known.
        add_bos: whether the token that begins a text stands before every one; as the tokenizer says for None.
        record: what the checkpoint keeps of where the source came from, where that is no path of the user's.

    Raises:
        UserError: an ignored field is used, or is not there; there is no token to add.
        CheckpointError, DataError: weights, tokenizer or adapter are damaged, or of a kind that is not known.
    """
    found = open_directory(source) if source.is_dir() else open_gguf(source)
    files = [config_fields(found.config)] if source.is_dir() else []
    files += [read_adapter_fields(adapter)] if adapter is not None else []
    require_ignorable(ignored, files)
    model = dataclasses.replace(read_model_config(found.config, ignored), param_dtype=param_dtype)
    tokenizer, chat = _read_language(source, found, given, model.vocab_size)
    tokenizer = _beginning(tokenizer, chat.bos, add_bos)
    if adapter is not None:
        found, model = merge_adapter(found, adapter, model, ignored)
    family, count = found.config["model_type"], count_parameters(abstract_params(model))
    more: dict[str, Any] = {} if adapter is None else {"adapter": adapter_facts(adapter)}
    more |= {} if record is None else {"source": dict(record)}
    save_model(
        out, model, import_params(family, model, found.shapes, found.read, shown), tokenizer, chat, **more
    )
    # Only now, with nothing else in memory: what was written, beside the source, one tensor at a time.
    require_tensors(family, model, load(out).params, found.shapes, found.read, shown)
    merged = "" if adapter is None else f", the adapter {adapter} merged into them"
    done = f"imported {count:,} parameters into {out}{merged}; read again, every bit is equal"
    return "\n".join(filter(None, (done, _told_around(tokenizer), passed_over(files))))


def _beginning(tokenizer: FileTokenizer, bos: str | None, add_bos: bool | None) -> FileTokenizer:
    """The tokenizer with or without a token before every text, as the user wants it."""
    if add_bos is None or add_bos == bool(tokenizer.start_ids):
        return tokenizer
    start = []
    if add_bos:
        token = None if bos is None else tokenizer.token_id(bos)
        if bos is None or token is None:
            raise UserError("add_bos_token needs a bos_token of the model's, and it names none; leave it out")
        start = [Named(bos, token)]
    content = tokenizer.to_dict()["content"]
    return FileTokenizer(with_tokens_around(content, start, tokens_around(content).end))


def _told_around(tokenizer: FileTokenizer) -> str:
    """A line on what stands before every text, and what does not stand after it."""
    around = tokens_around(tokenizer.to_dict()["content"])
    start, end = (" ".join(f"{token.content} (id {token.id})" for token in side) for side in around)
    before = f"{start} stands before every text" if start else "no token stands before a text"
    return f"{before}; {end}, which its tokenizer puts after one, is left out" if end else before


def _read_language(
    source: Path, found: Source, given: Path | None, vocab_size: int
) -> tuple[FileTokenizer, ChatFormat]:
    """Tokenizer and chat of a model, or those that are given in place of its own."""
    folder = given if given is not None and given.is_dir() else source if source.is_dir() else None
    file = given if folder != given else None
    note = None
    if folder is not None:
        tokenizer, note = read_directory_tokenizer(folder, file)
    elif file is not None:
        tokenizer = read_vocabulary_file(file)
    else:
        tokenizer = FileTokenizer(gguf_tokenizer_json(found.tokenizer))
        note = without_pre(found.tokenizer)
    if source.is_dir():
        chat = read_directory_chat(source, found.config, tokenizer.token_id, vocab_size, folder)
    else:
        chat = read_gguf_chat(found.tokenizer, vocab_size)
        if given is not None:
            require_same_pieces(tokenizer, found.tokenizer)
        if chat.template is None and folder is not None:
            chat = dataclasses.replace(chat, template=read_folder_template(folder))
    for line in filter(None, (note, check_tokens(tokenizer, chat, vocab_size, str(folder or source)))):
        remark(f"warning: {line}")
    return tokenizer, chat


def import_tutorial(source: Path, out: Path, tokenizer: str, context_length: int | None = None) -> str:
    """Make a directory for `load` of a state dict of the torch tutorial; give a line for the user.

    Args:
        source: the file.
        out: the directory to make.
        tokenizer: the name of the tokenizer that the model was trained with.
        context_length: the longest text, in tokens; None for what the file's masks say, or the tutorial.
    """
    state_dict = read_state_dict_file(source)
    model = tutorial.infer_config(state_dict, context_length)
    params = tutorial.import_params(state_dict, model)
    masks = {name for name in state_dict if tutorial.is_mask(name)}
    parameters = {name: tensor for name, tensor in state_dict.items() if name not in masks}
    if odd := [name for name, tensor in parameters.items() if tensor.dtype != np.float32]:
        raise CheckpointError(
            f"{source} must hold float32 tensors, but {odd[0]} is {state_dict[odd[0]].dtype}"
        )
    chosen = ByteTokenizer() if tokenizer == "bytes" else named_tokenizer(tokenizer)
    if chosen.vocab_size < model.vocab_size:
        raise UserError(
            f"the tokenizer must have the model's {model.vocab_size:,} ids, but {tokenizer} has "
            f"{chosen.vocab_size:,}; give another --tokenizer"
        )
    save_model(out, model, params, chosen)
    require_equal(load(out).params, params, out)
    count = sum(tensor.size for tensor in parameters.values())
    done = f"imported {count:,} parameters into {out}; read again, every bit is equal"
    if masks or context_length:
        return done
    return (
        f"{done}; without masks, texts of {model.context_length} tokens as in the tutorial (--context_length)"
    )
