"""Batches as pure functions of (seed, step), and the walk over a whole split. B batch, T context length, N
tokens.
"""

from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import numpy as np

from llm_jax.batch import Batch
from llm_jax.errors import DataError


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
