"""Whether a model, its tokenizer and its chat template are of one piece, asked when they come in."""

import re
from collections.abc import Mapping
from typing import Any

from llm_jax.base.errors import DataError
from llm_jax.tokenization.added_tokens import token_names
from llm_jax.tokenization.chat_format import ChatFormat
from llm_jax.tokenization.chat_template import render
from llm_jax.tokenization.conversation import split_at_markers
from llm_jax.tokenization.from_huggingface import FileTokenizer
from llm_jax.tokenization.traced_text import TEMPLATE, runs

_LIKELY = re.compile(r"<[|｜][^\s<>|｜]+[|｜]>")  # nobody writes so but for a marker


def check_tokens(tokenizer: FileTokenizer, chat: ChatFormat, vocab_size: int, where: str) -> str | None:
    """Return what is to be said of a template whose markers the tokenizer has not.

    Args:
        tokenizer: the model's.
        chat: what its files say of conversations.
        vocab_size: the model's.
        where: the file that the template is from.

    Raises:
        DataError: a text has ids that the model has not; an end token is none of the tokenizer's; the
            template writes markers that are none and nothing that ends a turn, or one that the model has not.
    """
    names, markers = (
        token_names(tokenizer),
        {marker["id"]: marker["content"] for marker in tokenizer.markers()},
    )
    if (largest := max(names.keys() - markers.keys(), default=0)) >= vocab_size:
        raise DataError(
            f"the tokenizer's {names[largest]!r:.80} has id {largest:,}, and the model has ids to "
            f"{vocab_size - 1:,} alone; it is another model's tokenizer"
        )
    for token in chat.eos_ids:
        if token not in names:
            raise DataError(
                f"{where}: eos_token_id in generation_config.json or config.json must be one of the "
                f"tokenizer's ids, which {token:,} is not"
            )
    turns = [{"role": role, "content": "x"} for role in ("user", "assistant", "user")]
    try:
        text = render(chat.template or "", turns, add_generation_prompt=True, tokens=chat.tokens())
    except DataError:  # it may want other messages
        return None
    written = [part for part in split_at_markers(text, tokenizer.markers()) if isinstance(part, int)]
    if beyond := [token for token in written if token >= vocab_size]:
        raise DataError(
            f"{where}: the chat template writes {markers[beyond[0]]!r:.80} with id {beyond[0]:,}, and the "
            f"model has ids to {vocab_size - 1:,} alone"
        )
    likely = [
        word
        for begin, end, origin in runs(text)
        if origin == TEMPLATE
        for word in _LIKELY.findall("".join([text[begin:end]]))
        if word not in markers.values()
    ]
    if not likely:
        return None
    said = f"{where}: the chat template writes {likely[0]!r:.80}, which is no token of the tokenizer"
    if not set(written) & set(chat.eos_ids):
        raise DataError(f"{said}, and nothing that ends a turn; give --tokenizer with one that has it")
    return f"{said}; it is spelt as text"


def require_same_pieces(tokenizer: FileTokenizer, metadata: Mapping[str, Any]) -> None:
    """Raise DataError for a tokenizer that calls one of a GGUF file's ids by another name."""
    tokens = metadata.get("tokenizer.ggml.tokens", [])
    markers = {marker["id"] for marker in tokenizer.markers()}
    for token, piece in token_names(tokenizer).items():
        if token < len(tokens) and tokens[token] != piece and token not in markers:
            raise DataError(
                f"the given tokenizer must be the GGUF file's, but its id {token:,} is {piece!r:.80}, and "
                f"there {tokens[token]!r:.80}"
            )
