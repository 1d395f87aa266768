"""Two models on the same text: the difference of their bits per byte, and how sure it is.

The models may have other tokenizers, vocabularies, contexts and splits: what they share is the text, so
losses are set side by side by byte position. Only bytes that both held out count.
"""

import math
from typing import NamedTuple

import numpy as np

from llm_jax.base.errors import DataError

BLOCK_BYTES = 256


class Scored(NamedTuple):
    """A model's loss on each target of its validation split, at its place in the corpus. N targets."""

    corpus: str  # its name, for messages
    source: str  # digest of its whole text
    begin: int  # byte of the corpus at which the first target begins
    end_N: np.ndarray  # byte at which each target ends
    nats_N: np.ndarray
    altered_by: str = ""  # digest of the tokenizer, where its tokens decode to other bytes than the text's


class Comparison(NamedTuple):
    """The second model against the first, in bits per byte over the bytes that both held out."""

    first: float
    second: float
    difference: float  # second minus first: below zero, the second is better
    standard_error: float  # of the difference
    bytes: int
    blocks: int

    @property
    def exceeds_noise(self) -> bool:
        """Whether the difference is more than two standard errors."""
        return abs(self.difference) > 2 * self.standard_error


def compare(first: Scored, second: Scored, block_bytes: int = BLOCK_BYTES) -> Comparison:
    """Return the paired difference of two models on one text.

    The bytes that both held out are cut into blocks of about `block_bytes`, and each block gives the
    difference of the models' total loss in it. Blocks and not tokens are the sample, because the losses of
    neighbouring tokens go together: as independent ones they would promise too small an error. Blocks are cut
    where a token ends under both tokenizers, so no token is divided and no nat is lost. As blocks are not
    quite equal, the standard error is that of a ratio of sums (Cochran 1977, section 6.3); for equal blocks
    it is that of a mean.

    Args:
        first: what the second is compared with.
        second: on the same text.
        block_bytes: least size of a block.

    Raises:
        DataError: the texts differ, or a tokenizer makes another of it, or both held out too little of it to
            say anything.
    """
    if first.source != second.source:
        raise DataError(
            f"losses on {first.corpus} and on {second.corpus} cannot be compared: they are different texts"
        )
    if first.altered_by != second.altered_by:
        which = "first" if first.altered_by else "second"
        raise DataError(
            f"losses on {first.corpus} cannot be compared: the {which} model's tokens decode to another "
            "text, as its tokenizer changes it (composes accents, say) before it cuts it"
        )
    edges = _cut(np.intersect1d(_borders(first), _borders(second)), block_bytes)
    if len(edges) < 3:
        raise DataError(
            f"both runs must hold out two blocks of {block_bytes} bytes of {first.corpus} or more, "
            f"got {edges[-1] - edges[0] if len(edges) else 0} bytes"
        )
    size_K = np.diff(edges)
    bits_K = np.stack([_bits_between(scored, edges) for scored in (first, second)])
    each, total = bits_K.sum(axis=1), int(size_K.sum())
    # The difference of exact sums; that of the models' own quotients would round twice.
    difference_K = bits_K[1] - bits_K[0]
    difference = float(difference_K.sum()) / total
    residual_K = difference_K - difference * size_K
    blocks = len(size_K)
    standard_error = math.sqrt(blocks / (blocks - 1) * float(np.square(residual_K).sum())) / total
    return Comparison(
        float(each[0]) / total, float(each[1]) / total, difference, standard_error, total, blocks
    )


def _borders(scored: Scored) -> np.ndarray:
    return np.append(scored.begin, scored.end_N)


def _cut(common: np.ndarray, least: int) -> np.ndarray:
    """Some of the common borders, `least` bytes apart or more, from the first to the last."""
    edges = list(common[:1])
    while len(edges) and (at := int(np.searchsorted(common, edges[-1] + least))) < len(common):
        edges.append(common[at])
    if len(common) and edges[-1] != common[-1]:
        # What is left at the end is less than a block and joins the last one.
        edges[max(1, len(edges) - 1) :] = [common[-1]]
    return np.array(edges, np.int64)


def _bits_between(scored: Scored, edges: np.ndarray) -> np.ndarray:
    """Bits of the targets that end after each edge, up to and at the next one."""
    total = np.concatenate([[0.0], np.cumsum(scored.nats_N)])
    return np.diff(total[np.searchsorted(scored.end_N, edges, side="right")]) / math.log(2)
