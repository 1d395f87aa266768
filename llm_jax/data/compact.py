"""The compact vocabulary: a big tokenizer cut down to the ids that a corpus uses, with bytes to spell the
rest.
"""

from typing import Any

import numpy as np

from llm_jax.data.tokenizers import Tokenizer


class CompactTokenizer:
    """Ids 0, 1, 2 ... stand for the kept ids of the base tokenizer, in its order.

    An id that is not kept is spelt with kept ones, the longest first; the base's 256 single bytes are always
    kept, so any text encodes.
    """

    def __init__(self, base: Tokenizer, kept: np.ndarray):
        self._base = base
        self._kept = np.unique(kept)
        if len(self._kept) == 0 or self._kept[0] < 0 or self._kept[-1] >= base.vocab_size:
            raise ValueError(f"kept ids must be from 0 to {base.vocab_size - 1}")
        self._from_base = np.full(base.vocab_size, -1, np.int32)
        self._from_base[self._kept] = np.arange(len(self._kept))
        self._by_bytes = {self.token_bytes(number): number for number in range(len(self._kept))}
        if not all(bytes([byte]) in self._by_bytes for byte in range(256)):
            raise ValueError("all 256 single bytes must be kept")

    @property
    def name(self) -> str:
        return f"compact {self._base.name}"

    @property
    def vocab_size(self) -> int:
        return len(self._kept)

    def encode(self, text: str) -> np.ndarray:
        return self.from_base(self._base.encode(text))

    def from_base(self, base_ids: np.ndarray) -> np.ndarray:
        """Ids [N] of the base tokenizer as int32 ids [M >= N] of this one."""
        ids = self._from_base[base_ids]
        missing = np.flatnonzero(ids < 0)
        spelt = {at: self._spell(self._base.token_bytes(int(base_ids[at]))) for at in missing}
        pieces = np.split(ids, np.stack([missing, missing + 1], axis=1).ravel()) if len(missing) else [ids]
        pieces[1::2] = [spelt[at] for at in missing]
        return np.concatenate(pieces).astype(np.int32)

    def _spell(self, piece: bytes) -> np.ndarray:
        ids = []
        while piece:
            length = next(n for n in range(len(piece), 0, -1) if piece[:n] in self._by_bytes)
            ids.append(self._by_bytes[piece[:length]])
            piece = piece[length:]
        return np.array(ids, np.int32)

    def token_bytes(self, token: int) -> bytes:
        return self._base.token_bytes(int(self._kept[token]))

    def to_dict(self) -> dict[str, Any]:
        return {"kind": "compact", "base": self._base.to_dict(), "kept": self._kept.tolist()}


def compact(base: Tokenizer, training_ids: np.ndarray, min_count: int) -> CompactTokenizer:
    """The base tokenizer cut down to the ids seen `min_count` times in a training split, plus its single
    bytes.
    """
    ids, counts = np.unique(training_ids, return_counts=True)
    single_bytes = [token for token in range(base.vocab_size) if len(base.token_bytes(token)) == 1]
    return CompactTokenizer(
        base, np.concatenate([ids[counts >= min_count], np.array(single_bytes)]).astype(np.int64)
    )
