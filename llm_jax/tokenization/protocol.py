"""What every tokenizer offers: text to ids and back, self-describing, special tokens off for user text."""

import hashlib
import json
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np


class Tokenizer(Protocol):
    """Text to ids and back."""

    @property
    def name(self) -> str: ...

    @property
    def vocab_size(self) -> int: ...

    @property
    def start_ids(self) -> tuple[int, ...]:
        """Ids that stand before every text that a model reads; none for most tokenizers."""
        ...

    def encode(self, text: str) -> np.ndarray:
        """Return ids [N] int32 of the text alone; never a special token, whatever the text says."""
        ...

    def token_bytes(self, token: int) -> bytes:
        """Return the UTF-8 bytes of one id, possibly a part of a character; empty for special and unused ids,
        those beyond the vocabulary included, which a padded model draws.
        """
        ...

    def to_dict(self) -> dict[str, Any]:
        """Return all that `tokenizer_from_dict` needs, as JSON values."""
        ...


def decode_bytes(tokenizer: Tokenizer, ids: Sequence[int] | np.ndarray) -> bytes:
    """Return the bytes of all ids, joined."""
    return b"".join(tokenizer.token_bytes(int(token)) for token in ids)


def decode(tokenizer: Tokenizer, ids: Sequence[int] | np.ndarray) -> str:
    """Return the text of all ids; bytes that are not UTF-8 become U+FFFD."""
    return decode_bytes(tokenizer, ids).decode("utf-8", errors="replace")


def fingerprint(tokenizer: Tokenizer) -> str:
    """Return SHA-256 over what defines the tokenizer."""
    return hashlib.sha256(json.dumps(tokenizer.to_dict(), sort_keys=True).encode()).hexdigest()


def utf8(text: str) -> bytes:
    """Return the text in UTF-8; a lone surrogate (half of a character, as some JSON has) becomes U+FFFD, as
    in tiktoken.
    """
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace").encode()
