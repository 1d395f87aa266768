"""The tokens that a tokenizer puts around every text, as the content of a `tokenizer.json` says it.

Its `post_processor` is the one place where this is decided: checkpoints carry it, whatever reads or
scores a text asks for the tokens before it (`start_ids`), and exports write it. Those after a text are
kept for other programs and never used here, where a text is to go on.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import tokenizers


class Named(NamedTuple):
    """A token by both of its names."""

    content: str
    id: int


class Around(NamedTuple):
    """What stands before every text and after it."""

    start: list[Named]
    end: list[Named]


def tokens_around(content: Mapping[str, Any]) -> Around:
    """Return what the post-processor of a `tokenizer.json` puts around a text, as its own library does it."""
    word = {"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "a"}  # any text is one token
    others = ("truncation", "padding", "normalizer", "pre_tokenizer", "decoder")
    parts = {"version": "1.0", "added_tokens": [], "model": word, **dict.fromkeys(others)}
    processor = content.get("post_processor")
    runner = tokenizers.Tokenizer.from_str(json.dumps({**parts, "post_processor": processor}))
    found = runner.encode("a")
    tokens = [Named(*token) for token in zip(found.tokens, found.ids, strict=True)]
    at = found.special_tokens_mask.index(0)
    return Around(tokens[:at], tokens[at + 1 :])


def with_tokens_around(
    content: Mapping[str, Any], start: Sequence[Named], end: Sequence[Named] = ()
) -> dict[str, Any]:
    """Return the content, made to put these tokens around every text, and no others."""

    def piece(kind: str, name: str, text: int) -> dict[str, Any]:
        return {kind: {"id": name, "type_id": text}}

    def framed(name: str, text: int) -> list[dict[str, Any]]:
        sides = ([piece("SpecialToken", token.content, text) for token in side] for side in (start, end))
        before, after = sides
        return [*before, piece("Sequence", name, text), *after]

    processor = {
        "type": "TemplateProcessing",
        "single": framed("A", 0),
        "pair": [*framed("A", 0), *framed("B", 1)],
        "special_tokens": {
            token.content: {"id": token.content, "ids": [token.id], "tokens": [token.content]}
            for token in (*start, *end)
        },
    }
    return {**content, "post_processor": processor}
