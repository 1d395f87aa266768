"""Tokens that a model's small files add to its tokenizer.json, with the ids that the library gives them."""

from collections.abc import Mapping, Sequence
from typing import Any

from llm_jax.data.file_tokenizer import FileTokenizer
from llm_jax.errors import DataError

FLAGS = ("single_word", "lstrip", "rstrip", "normalized", "special")


def token_names(tokenizer: FileTokenizer) -> dict[int, str]:
    """What each id is called in the file; some ids have none."""
    content = tokenizer.to_dict()["content"]
    pieces = content["model"]["vocab"]
    numbered = (
        enumerate(entry[0] for entry in pieces)
        if isinstance(pieces, list)
        else ((token, piece) for piece, token in pieces.items())
    )
    return dict(numbered) | {token["id"]: token["content"] for token in content.get("added_tokens") or []}


def with_added_tokens(tokenizer: FileTokenizer, tokens: Sequence[Mapping[str, Any]]) -> FileTokenizer:
    """The tokenizer with these tokens among its `added_tokens`.

    A token that has an id keeps it, and gets these flags; any other gets the next id that is free. So it is
    in the library, which has no other way to store them.

    Args:
        tokenizer: of a tokenizer.json.
        tokens: each with `content` and `FLAGS`, in their order.

    Raises:
        DataError: the next id is taken, as the vocabulary has holes.
    """
    content = tokenizer.to_dict()["content"]
    added = {token["content"]: token for token in content.get("added_tokens") or []}
    before, taken, size = dict(added), set(token_names(tokenizer)), len(content["model"]["vocab"])
    for token in tokens:
        token_id = tokenizer.token_id(token["content"])
        if token["content"] in added:
            token_id = added[token["content"]]["id"]
        if token_id is None:
            token_id = max([size - 1, *(other["id"] for other in added.values())]) + 1
            if token_id in taken:
                raise DataError(f"the token {token['content']!r:.80} gets id {token_id:,}, which is taken")
        added[token["content"]] = {"id": token_id, **token}
    if added == before:
        return tokenizer
    return FileTokenizer({**content, "added_tokens": sorted(added.values(), key=lambda token: token["id"])})
