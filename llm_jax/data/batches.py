"""Batches as pure functions of (seed, step), and walks over a whole split and over texts to score.

Legend: B batch, T context length, N tokens.
"""

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from llm_jax.batch import Batch
from llm_jax.errors import DataError

_NARROWEST = 16  # tokens of a window to score; each width is compiled, and narrower ones would save no time


def batch_at(
    tokens: np.ndarray, *, order: str, context_length: int, batch_size: int, seed: int, step: int
) -> Batch:
    """The training batch of a step.

    Args:
        tokens: a split [N].
        order: "random" draws B positions anew each step, as the torch tutorial does; "permutation" visits
            every window once an epoch, in an order shuffled by seed and epoch. Its windows lie side by side,
            from an offset drawn for each epoch.
        context_length: T.
        batch_size: B.
        seed: origin of the order.
        step: from 0; any step can be asked for at any time.

    Raises:
        DataError: the split is shorter than T + 1.
    """
    if len(tokens) <= context_length:
        raise DataError(
            f"the training split must have more than context_length ({context_length}) tokens, "
            f"got {len(tokens)}"
        )
    if order == "random":
        generator = np.random.Generator(np.random.Philox(key=[seed, step]))
        start_B = generator.integers(0, len(tokens) - context_length, batch_size)
    else:
        start_B = _permuted_starts(len(tokens), context_length, batch_size, seed, step)
    return _cut(tokens, start_B, context_length)


def evaluation_batches(
    tokens: np.ndarray, *, context_length: int, batch_size: int, stride: int | None = None
) -> Iterator[Batch]:
    """Windows over a split [N] that score each of its N - 1 targets once; all batches have one shape.

    Windows begin `stride` tokens apart (context_length where not given: side by side). Each scores what the
    ones before it did not, so that all but the first window's targets have context_length - stride tokens
    before them.

    Raises:
        DataError: the split has fewer than 2 tokens.
    """
    num_targets = len(tokens) - 1
    if num_targets < 1:
        raise DataError(f"the text to evaluate must have at least 2 tokens, got {len(tokens)}")
    stride = stride or context_length
    num_windows = 1 + max(0, -(-(num_targets - context_length) // stride))
    for first in range(0, num_windows, batch_size):
        window_B = first + np.arange(batch_size)
        target_BT = window_B[:, None] * stride + np.arange(context_length)
        scored_BT = (target_BT < num_targets) & (window_B < num_windows)[:, None]
        scored_BT &= (window_B == 0)[:, None] | (np.arange(context_length) >= context_length - stride)
        target_BT = np.minimum(target_BT, num_targets - 1)
        tokens_BT, targets_BT = (np.asarray(tokens)[target_BT + n].astype(np.int32) for n in (0, 1))
        yield Batch(tokens_BT, targets_BT, scored_BT.astype(np.float32))


class Prompted(NamedTuple):
    """Token ids of a text, and how many of the first are only what stands before it."""

    tokens: np.ndarray  # [N] integers
    given: int  # at least 1: the first token of all has nothing that it could be scored by


class Rows(NamedTuple):
    """A batch of windows, and the text that each is of."""

    texts: np.ndarray  # a text's number for each of the batch's first rows; rows after them are empty
    batch: Batch


def scoring_batches(
    texts: Sequence[Prompted], *, context_length: int, stride: int, batch_tokens: int
) -> list[Rows]:
    """Batches that score every token of each text but those that are given.

    Windows are those of `evaluation_batches`, so a text longer than the context is scored as a split is. What
    is given loses its beginning where it and the text do not fit: what stays lets the text fit after it, and
    is at least what each later window has, context_length - stride tokens. Texts of about the same length
    share batches, whose numbers of rows and tokens are powers of two (or the context's), the widest first. A
    text's windows keep their order.

    Args:
        texts: in any order.
        context_length: most tokens of a window.
        stride: tokens between windows of one text, from 1 to context_length.
        batch_tokens: most tokens of a batch of more than one row.

    Raises:
        DataError: a text has no token to score.
    """
    by_width: dict[int, list[tuple[int, Batch]]] = {}
    for number, text in enumerate(texts):
        if len(text.tokens) <= text.given or text.given < 1:
            raise DataError(
                f"a text to score must have a token before it and at least one of its own; got "
                f"{text.given} before, and {len(text.tokens) - text.given}"
            )
        tokens, given = _fitted(text, context_length, stride)
        width = min(context_length, max(_NARROWEST, power_of_two(len(tokens) - 1)))
        for window in evaluation_batches(tokens, context_length=width, batch_size=1, stride=stride):
            scored_BT = window.weights * (np.arange(width) >= given - 1)
            by_width.setdefault(width, []).append((number, window._replace(weights=scored_BT)))
            given = 0  # All that is given lies in the first window.
    batches = []
    for width, rows in sorted(by_width.items(), reverse=True):
        count = 1 << max(0, (batch_tokens // width).bit_length() - 1)
        batches += [_joined(rows[first : first + count]) for first in range(0, len(rows), count)]
    return batches


def _fitted(text: Prompted, context_length: int, stride: int) -> Prompted:
    room = context_length + 1 - min(stride, len(text.tokens) - text.given)
    dropped = max(0, text.given - room)
    return Prompted(text.tokens[dropped:], text.given - dropped)


def _joined(rows: Sequence[tuple[int, Batch]]) -> Rows:
    """One batch of single rows, filled up to a power of two with rows that score nothing."""
    numbers, windows = zip(*rows, strict=True)
    empty = windows[0]._replace(weights=np.zeros_like(windows[0].weights))
    windows += (empty,) * (power_of_two(len(rows)) - len(rows))
    return Rows(np.array(numbers), Batch(*map(np.concatenate, zip(*windows, strict=True))))


def power_of_two(number: int) -> int:
    """The least power of two that is not below the number: of such sizes a few programs serve all."""
    return 1 << max(0, number - 1).bit_length()


def _cut(tokens: np.ndarray, start_B: np.ndarray, context_length: int) -> Batch:
    window_BT = tokens[start_B[:, None] + np.arange(context_length + 1)].astype(np.int32)
    weights_BT = np.ones((len(start_B), context_length), np.float32)
    return Batch(window_BT[:, :-1], window_BT[:, 1:], weights_BT)


def _permuted_starts(
    num_tokens: int, context_length: int, batch_size: int, seed: int, step: int
) -> np.ndarray:
    # One window fewer than fits leaves room for the offset, so that borders fall elsewhere in each epoch.
    num_windows = max(1, (num_tokens - 1) // context_length - 1)
    largest_offset = num_tokens - 1 - num_windows * context_length
    index_B = step * batch_size + np.arange(batch_size)
    order = _permutation(num_windows, seed)
    window_B = np.array([order[int(index)] for index in index_B])
    offset_B = np.array([_epoch_offset(seed, int(epoch), largest_offset) for epoch in index_B // num_windows])
    return window_B * context_length + offset_B


@lru_cache(maxsize=8)
def _permutation(num_windows: int, seed: int) -> Any:
    """Window numbers by position, over endless epochs that are each shuffled anew."""
    import grain

    return grain.MapDataset.range(num_windows).seed(seed).shuffle().repeat()


@lru_cache(maxsize=1024)
def _epoch_offset(seed: int, epoch: int, largest: int) -> int:
    return int(np.random.Generator(np.random.Philox(key=[seed, epoch])).integers(0, largest + 1))
