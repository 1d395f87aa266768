"""The compact vocabulary: a byte-pair tokenizer cut down to the ids that a corpus uses often enough.

A rare id is taken apart into the two whose merge made it, and these again, down to single bytes if need be.
So training text spells its own rare words, and thereby teaches the pieces that words not seen there are spelt
with.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from llm_jax.base.errors import DataError
from llm_jax.tokenization.byte_pair import RankTokenizer


class CompactTokenizer:
    """Ids 0, 1, 2 ... stand for the kept ids of the base tokenizer, in its order.

    Args:
        base: whose ids are cut down.
        kept: base ids.
        rare_ids: "spell" writes any other id with kept ones, which must include the base's 256 single bytes;
            "share" appends all others, so that nothing is spelt, for a model that gives them one row.
    """

    start_ids = ()

    def __init__(self, base: RankTokenizer, kept: np.ndarray, rare_ids: str):
        self._base, self._rare_ids = base, rare_ids
        self._kept = np.unique(kept)
        if self._kept.size and not 0 <= self._kept[0] <= self._kept[-1] < base.vocab_size:
            raise ValueError(f"kept ids must be from 0 to {base.vocab_size - 1}")
        if rare_ids not in ("spell", "share"):
            raise ValueError(f'rare_ids must be "spell" or "share", got {rare_ids!r}')
        others = np.setdiff1d(base.text_ids(), self._kept) if rare_ids == "share" else self._kept[:0]
        self.shared_ids = len(others)
        self._base_ids = np.concatenate([self._kept, others])
        if not np.isin(base.single_bytes(), self._base_ids).all():
            raise ValueError("all 256 single bytes must be kept")
        self._from_base = np.full(base.vocab_size, -1, np.int32)
        self._from_base[self._base_ids] = np.arange(len(self._base_ids))

    @property
    def name(self) -> str:
        return f"compact {self._base.name}"

    @property
    def vocab_size(self) -> int:
        return len(self._base_ids)

    @property
    def base(self) -> RankTokenizer:
        """The tokenizer that was cut down."""
        return self._base

    @property
    def base_ids(self) -> np.ndarray:
        """The base's id of each id here."""
        return self._base_ids

    @property
    def spells(self) -> bool:
        """Whether ids that are not kept are written with kept ones."""
        return self._rare_ids == "spell"

    def encode(self, text: str) -> np.ndarray:
        return self.from_base(self._base.encode(text))

    def from_base(self, base_ids: np.ndarray) -> np.ndarray:
        """Return ids [N] of the base tokenizer as int32 ids [M >= N] of this one."""
        ids = self._from_base[base_ids]
        missing = np.flatnonzero(ids < 0)
        if not len(missing):
            return ids
        pieces = np.split(ids, np.stack([missing, missing + 1], axis=1).ravel())
        pieces[1::2] = [np.array(self._spell(int(base_ids[at])), np.int32) for at in missing]
        return np.concatenate(pieces)

    def _spell(self, base_id: int) -> list[int]:
        if self._from_base[base_id] >= 0:
            return [int(self._from_base[base_id])]
        left, right = self._base.halves(base_id)
        return self._spell(left) + self._spell(right)

    def token_bytes(self, token: int) -> bytes:
        return self._base.token_bytes(int(self._base_ids[token])) if token < self.vocab_size else b""

    def to_dict(self) -> dict[str, Any]:
        kept = self._kept.tolist()
        return {"kind": "compact", "base": self._base.to_dict(), "kept": kept, "rare_ids": self._rare_ids}


def compact(
    base: RankTokenizer,
    training_ids: np.ndarray,
    min_count: int,
    rare_ids: str,
    always: Sequence[int] = (),
) -> CompactTokenizer:
    """Return the base tokenizer cut down to the ids that a training split uses `min_count` times, and those
    `always` kept, as special ones that cannot be spelt.

    Where rare ids are spelt, uses in spelling count, and the single bytes are kept too. Halves have lower ids
    than their merge, so one pass from the top settles everything.
    """
    counts = np.bincount(training_ids, minlength=base.vocab_size)
    counts[list(always)] += min_count
    if rare_ids == "share":
        if not np.any(counts >= min_count):
            raise DataError(
                f"at least one token id must come {min_count} times in the training text, got none; "
                "lower compact_min_count or give more text"
            )
        return CompactTokenizer(base, np.flatnonzero(counts >= min_count), rare_ids)
    counts[base.single_bytes()] += min_count
    for token in range(base.vocab_size - 1, -1, -1):
        if 0 < counts[token] < min_count:
            for half in base.halves(token):
                counts[half] += counts[token]
            counts[token] = 0
    return CompactTokenizer(base, np.flatnonzero(counts), rare_ids)
