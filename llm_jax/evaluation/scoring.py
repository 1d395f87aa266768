"""Texts as a model scores them: the log-probability of each token, and whether it would have chosen it."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from llm_jax.base.batch import Rows
from llm_jax.evaluation.metrics import bits_per_byte, summarise


class TokenScores(NamedTuple):
    """The scored tokens of one text, in its order."""

    log_probs: np.ndarray  # [N] float64, nats
    greedy: np.ndarray  # [N] bool, whether each is the likeliest token after those before it


class TextScore(NamedTuple):
    """A text as a model sees it. N tokens are scored: all that have one before them."""

    tokens: np.ndarray  # [N] int32 ids
    log_probs: np.ndarray  # [N] float64, nats, each after all tokens before it
    greedy: np.ndarray  # [N] bool, whether greedy decoding would have chosen it
    bytes: int  # UTF-8 bytes of the text that those tokens stand for

    @property
    def total(self) -> float:
        """The log-probability of all of them, in nats."""
        return float(self.log_probs.sum())

    @property
    def bits_per_byte(self) -> float:
        """Comparable between tokenizers; NaN where no token stands for a byte."""
        return bits_per_byte(-self.total, self.bytes)

    @property
    def perplexity(self) -> float:
        """Of a token."""
        return summarise(-self.log_probs, self.bytes).perplexity


def scores_of_texts(
    score_rows: Callable[[Rows], tuple[Any, Any, Any]],
    rows: Sequence[Rows],
    shown: Callable[[Sequence], Iterable] = iter,
) -> Iterator[tuple[int, TokenScores]]:
    """Yield the number of each text with its scores, as soon as its last window is done.

    Args:
        score_rows: gives nats, whether each target is the likeliest, and whether it is scored, [B, T] each.
        rows: all of them, as `scoring_rows` makes them.
        shown: may show progress over them.
    """
    missing = Counter(window.text for each in rows for window in each.windows)
    parts: dict[int, list[tuple[np.ndarray, np.ndarray]]] = {}
    for each in shown(rows):
        nats_BT, greedy_BT, scored_BT = (np.asarray(found) for found in score_rows(each))
        for row, window in enumerate(each.windows):
            text, scored_T = window.text, scored_BT[row]
            part = -nats_BT[row, scored_T].astype(np.float64), greedy_BT[row, scored_T]
            parts.setdefault(text, []).append(part)
            missing[text] -= 1
            if not missing[text]:
                yield text, TokenScores(*map(np.concatenate, zip(*parts.pop(text), strict=True)))
