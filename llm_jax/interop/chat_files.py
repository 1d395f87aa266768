"""What other programs' models say about conversations: Hugging Face's small files, GGUF's keys.

Every value is a stranger's: its type, size and vocabulary are checked where it becomes a `ChatFormat`.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from llm_jax.data.chat_format import ChatFormat, read_template
from llm_jax.errors import CheckpointError, DataError
from llm_jax.interop.huggingface_directory import own_file, read_json
from llm_jax.interop.sources import quoted

_TEMPLATE_FILE = "chat_template.jinja"


def read_directory_chat(
    folder: Path, config: Mapping[str, Any], token_id: Callable[[str], int | None], vocab_size: int
) -> ChatFormat:
    """The conversations of a Hugging Face directory, whose files may all be missing.

    A text ends at the tokens that generation_config.json names (config.json where there is none), and at the
    tokenizer's own end token. Of several templates the one named "default" is taken, as in transformers.

    Args:
        folder: with tokenizer_config.json, generation_config.json and chat_template.jinja.
        config: config.json's fields.
        token_id: a token's id by its content.
        vocab_size: the model's.

    Raises:
        CheckpointError, DataError: a file is damaged, or a value is not what it must be.
    """
    tokenizer = _optional(folder, "tokenizer_config.json")
    bos, eos = (_content(tokenizer, name) for name in ("bos_token", "eos_token"))
    generation = _optional(folder, "generation_config.json")
    where, ends = "generation_config.json", generation.get("eos_token_id")
    if ends is None:
        where, ends = "config.json", config.get("eos_token_id")
    ids = ends if isinstance(ends, list) else [] if ends is None else [ends]
    if not all(type(token) is int for token in ids):
        raise CheckpointError(f"{where}: eos_token_id must be an id or a list of ids, got {quoted(ends)}")
    own = None if eos is None else token_id(eos)
    own_ids = [] if own is None else [own]
    begin, fill = (_mark(name, generation, config, vocab_size) for name in ("bos_token_id", "pad_token_id"))
    known = ChatFormat(
        _template(folder, tokenizer.get("chat_template")),
        bos,
        eos,
        tuple(dict.fromkeys(ids + own_ids)),
        bos_id=None if bos is not None and token_id(bos) == begin else begin,
        pad_id=fill,
    )
    return known.checked(vocab_size)


def read_gguf_chat(metadata: Mapping[str, Any], vocab_size: int) -> ChatFormat:
    """The conversations of a GGUF file: a text ends at the tokens that it names as the ends of a text, a turn
    and a message.

    Args:
        metadata: the file's keys that begin with `tokenizer.`.
        vocab_size: the model's.

    Raises:
        CheckpointError, DataError: a value is not what it must be.
    """
    tokens = metadata.get("tokenizer.ggml.tokens", [])
    names = ("bos", "eos", "eot", "eom")
    ids = {name: metadata.get(f"tokenizer.ggml.{name}_token_id") for name in names}
    for name, token in ids.items():
        if token is not None and (type(token) is not int or not 0 <= token < len(tokens)):
            raise DataError(
                f"tokenizer.ggml.{name}_token_id must be a whole number from 0 to {len(tokens) - 1:,}, "
                f"got {token!r:.80}"
            )
    bos, eos = (None if ids[name] is None else tokens[ids[name]] or None for name in ("bos", "eos"))
    ends = [token for name, token in ids.items() if name != "bos" and token is not None]
    template = metadata.get("tokenizer.chat_template")
    none = isinstance(template, str) and not template
    own = tuple(dict.fromkeys(ends))
    fill = _mark("tokenizer.ggml.padding_token_id", metadata, {}, len(tokens))
    return ChatFormat(None if none else template, bos, eos, own, pad_id=fill).checked(vocab_size)


def _mark(name: str, first: Mapping[str, Any], second: Mapping[str, Any], vocab_size: int) -> int | None:
    """The id that one of them gives this name; None for one that is none of the model's, as in many files."""
    token = second.get(name) if first.get(name) is None else first[name]
    if token is not None and type(token) is not int:
        raise CheckpointError(f"{name} must be an id, got {quoted(token)}")
    return token if token is not None and 0 <= token < vocab_size else None


def _optional(folder: Path, name: str) -> dict[str, Any]:
    try:
        return read_json(own_file(folder, name)) if _is_there(folder / name) else {}
    except OSError as error:
        raise CheckpointError(f"{folder / name} cannot be read: {error.strerror}") from None


def _is_there(path: Path) -> bool:
    return path.is_symlink() or path.exists()


def _content(tokenizer: Mapping[str, Any], name: str) -> str | None:
    """A token's text, which is a string or an object with its content."""
    value = tokenizer.get(name)
    text = value.get("content") if isinstance(value, dict) else value
    if value is not None and not isinstance(text, str):
        raise CheckpointError(
            f"tokenizer_config.json: {name} must be a string or an object with content, got {quoted(value)}"
        )
    return text or None


def _template(folder: Path, configured: Any) -> str | None:
    if _is_there(folder / _TEMPLATE_FILE):
        return read_template(own_file(folder, _TEMPLATE_FILE))
    if not isinstance(configured, list):
        if configured is not None and not isinstance(configured, str):
            raise CheckpointError(
                f"tokenizer_config.json: chat_template must be a string or a list, got {quoted(configured)}"
            )
        return configured or None
    for entry in configured:
        texts = [entry.get("name"), entry.get("template")] if isinstance(entry, dict) else [None]
        if not all(isinstance(text, str) for text in texts):
            raise CheckpointError(
                "tokenizer_config.json: chat_template must list objects with name and template, "
                f"got {quoted(entry)}"
            )
    named = {entry["name"]: entry["template"] for entry in configured}
    return named.get("default") or None
