"""What other programs' models say about conversations: Hugging Face's small files, GGUF's keys.

Every value is a stranger's: its type, size and vocabulary are checked where it becomes a `ChatFormat`.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from llm_jax.base.errors import CheckpointError, DataError
from llm_jax.interop.huggingface.read_directory import own_file
from llm_jax.interop.huggingface.tokenizer_files import is_there, named_tokens, optional_json
from llm_jax.interop.source import quoted
from llm_jax.tokenization.chat_format import NAMED, ChatFormat, read_template

# What GGUF's keys call the tokens; "seperator" is how it is spelt there.
_GGUF_KEYS = {name: name for name in ("bos", "eos", "eot", "eom")}
_GGUF_KEYS |= {"pad": "padding", "unk": "unknown", "sep": "seperator"}
_TEMPLATE_FILE, _TEMPLATE_FOLDER = "chat_template.jinja", "additional_chat_templates"


def read_directory_chat(
    folder: Path,
    config: Mapping[str, Any],
    token_id: Callable[[str], int | None],
    vocab_size: int,
    tokens: Path | None = None,
) -> ChatFormat:
    """Return the conversations of a Hugging Face directory, whose files may all be missing.

    A text ends at the tokens that generation_config.json names (config.json where there is none), and at the
    tokenizer's own end token. Of several templates the one named "default" is taken, as in transformers.

    Args:
        folder: with tokenizer_config.json, special_tokens_map.json, generation_config.json and templates.
        config: config.json's fields.
        token_id: a token's id by its content.
        vocab_size: the model's.
        tokens: the directory that the tokenizer and its template are from, where it is another.

    Raises:
        CheckpointError, DataError: a file is damaged, or a value is not what it must be.
    """
    told = named_tokens(tokens or folder)
    named = {name: told[f"{name}_token"] for name in NAMED if f"{name}_token" in told}
    generation = optional_json(folder, "generation_config.json")
    where, ends = "generation_config.json", generation.get("eos_token_id")
    if ends is None:
        where, ends = "config.json", config.get("eos_token_id")
    ids = ends if isinstance(ends, list) else [] if ends is None else [ends]
    if not all(type(token) is int for token in ids):
        raise CheckpointError(f"{where}: eos_token_id must be an id or a list of ids, got {quoted(ends)}")
    own = token_id(named.get("eos", ""))
    ids = list(dict.fromkeys(ids if own is None else [*ids, own]))
    marks = {}
    for name in ("bos", "pad"):
        mark = _mark(f"{name}_token_id", generation, config, vocab_size)
        marks[f"{name}_id"] = None if token_id(named.get(name, "")) == mark else mark
    template = read_folder_template(tokens or folder)
    return ChatFormat(template, eos_ids=tuple(ids), **named, **marks).checked(vocab_size)


def read_gguf_chat(metadata: Mapping[str, Any], vocab_size: int) -> ChatFormat:
    """Return the conversations of a GGUF file: a text ends at the tokens that it names as the ends of a text,
    a turn and a message.

    Args:
        metadata: the file's keys that begin with `tokenizer.`.
        vocab_size: the model's.

    Raises:
        DataError: a value is not what it must be.
    """
    tokens = metadata.get("tokenizer.ggml.tokens", [])
    ids = {}
    for name, key in _GGUF_KEYS.items():
        token = metadata.get(f"tokenizer.ggml.{key}_token_id")
        if name in ("pad", "unk", "sep") and type(token) is int and not 0 <= token < len(tokens):
            continue  # so many files say that there is none
        if token is not None and (type(token) is not int or not 0 <= token < len(tokens)):
            raise DataError(
                f"tokenizer.ggml.{key}_token_id must be a whole number from 0 to {len(tokens) - 1:,}, "
                f"got {token!r:.80}"
            )
        ids |= {} if token is None else {name: token}
    named = {name: tokens[ids[name]] for name in NAMED if name in ids and tokens[ids[name]]}
    ends = dict.fromkeys(ids[name] for name in ("eos", "eot", "eom") if name in ids)
    template = metadata.get("tokenizer.chat_template")
    none = isinstance(template, str) and not template
    return ChatFormat(None if none else template, eos_ids=tuple(ends), **named).checked(vocab_size)


def _mark(name: str, first: Mapping[str, Any], second: Mapping[str, Any], vocab_size: int) -> int | None:
    """The id that one of them gives this name; None for one that is none of the model's, as in many files."""
    token = second.get(name) if first.get(name) is None else first[name]
    if token is not None and type(token) is not int:
        raise CheckpointError(f"{name} must be an id, got {quoted(token)}")
    return token if token is not None and 0 <= token < vocab_size else None


def read_folder_template(folder: Path) -> str | None:
    """Return the template of a Hugging Face directory, which lies in one of five places."""
    for name in (f"{_TEMPLATE_FOLDER}/default.jinja", _TEMPLATE_FILE):
        if is_there(folder / name):
            return read_template(own_file(folder, name))
    for name in (
        "tokenizer_config.json",
        "chat_template.json",
    ):  # the second was made for processors of images
        if (template := _default(optional_json(folder, name).get("chat_template"), name)) is not None:
            return template
    return None


def _default(configured: Any, where: str) -> str | None:
    """The template, or of several the one that is called "default"."""
    if configured is None or isinstance(configured, str):
        return configured or None
    entries = configured if isinstance(configured, list) else []
    if isinstance(configured, dict):
        entries = [{"name": name, "template": template} for name, template in configured.items()]
    elif not isinstance(configured, list):
        raise CheckpointError(f"{where}: chat_template must be a string or a list, got {quoted(configured)}")
    for entry in entries:
        texts = [entry.get("name"), entry.get("template")] if isinstance(entry, dict) else [None]
        if not all(isinstance(text, str) for text in texts):
            raise CheckpointError(
                f"{where}: chat_template must list objects with name and template, got {quoted(entry)}"
            )
    return {entry["name"]: entry["template"] for entry in entries}.get("default") or None
