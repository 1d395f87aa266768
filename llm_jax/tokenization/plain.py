"""Tokenizers without a vocabulary to learn: bytes, and characters."""

from typing import Any

import numpy as np

from llm_jax.tokenization.protocol import utf8


class ByteTokenizer:
    """Ids are the text's UTF-8 bytes."""

    name = "bytes"
    vocab_size = 256
    start_ids = ()

    def encode(self, text: str) -> np.ndarray:
        return np.frombuffer(utf8(text), np.uint8).astype(np.int32)

    def token_bytes(self, token: int) -> bytes:
        return bytes([token]) if token < self.vocab_size else b""

    def to_dict(self) -> dict[str, Any]:
        return {"kind": "bytes"}


class CharacterTokenizer:
    """Ids are characters in the order of their code points, then 256 bytes for characters that are not among
    them.
    """

    name = "characters"
    start_ids = ()

    def __init__(self, characters: str):
        self._characters = "".join(sorted(set(characters)))
        self._ids = {character: number for number, character in enumerate(self._characters)}

    @property
    def vocab_size(self) -> int:
        return len(self._characters) + 256

    def encode(self, text: str) -> np.ndarray:
        ids: list[int] = []
        for character in text:
            known = self._ids.get(character)
            ids.extend([known] if known is not None else (len(self._ids) + byte for byte in utf8(character)))
        return np.array(ids, np.int32)

    def token_bytes(self, token: int) -> bytes:
        if token < len(self._characters):
            return self._characters[token].encode()
        return bytes([token - len(self._characters)]) if token < self.vocab_size else b""

    def to_dict(self) -> dict[str, Any]:
        return {"kind": "characters", "characters": self._characters}
