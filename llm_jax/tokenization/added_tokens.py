"""Tokens that a model's small files add to its tokenizer.json, with the ids that the library gives them."""

from collections.abc import Mapping, Sequence
from typing import Any

from llm_jax.base.errors import DataError
from llm_jax.tokenization.from_huggingface import FileTokenizer

FLAGS = ("single_word", "lstrip", "rstrip", "normalized", "special")


def token_names(tokenizer: FileTokenizer) -> dict[int, str]:
    """Return what each id is called in the file; some ids have none."""
    content = tokenizer.to_dict()["content"]
    pieces = content["model"]["vocab"]
    numbered = (
        enumerate(entry[0] for entry in pieces)
        if isinstance(pieces, list)
        else ((token, piece) for piece, token in pieces.items())
    )
    return dict(numbered) | {token["id"]: token["content"] for token in content.get("added_tokens") or []}


def with_added_tokens(tokenizer: FileTokenizer, tokens: Sequence[Mapping[str, Any]]) -> FileTokenizer:
    """Return the tokenizer with these tokens among its `added_tokens`.

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
    before, names = dict(added), token_names(tokenizer)
    ids = {name: token_id for token_id, name in names.items()}
    last = max([len(content["model"]["vocab"]) - 1, *(token["id"] for token in added.values())])
    for token in tokens:
        if token["content"] not in ids:
            last += 1
            if last in names:
                raise DataError(f"the token {token['content']!r:.80} gets id {last:,}, which is taken")
            ids[token["content"]] = last
        last = max(last, ids[token["content"]])
        added[token["content"]] = {"id": ids[token["content"]], **token}
    if added == before:
        return tokenizer
    return FileTokenizer({**content, "added_tokens": sorted(added.values(), key=lambda token: token["id"])})
