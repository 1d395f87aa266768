"""Batches as pure functions of (seed, step).

A row is what a model reads: the tokens that its tokenizer puts before every text (`start_ids`, mostly
none), then a part of the text. The token after each is a target where it is the text's. Legend: B batch,
T context length, N tokens, S start ids, L tokens of the text that a row reads or predicts, T + 1 - S.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from llm_jax.base.batch import Batch
from llm_jax.base.errors import DataError


class OrderStart(NamedTuple):
    """Where an order of batches begins: with this batch, after so many sequences."""

    batch: int = 0
    sequences: int = 0


def batch_at(
    tokens: np.ndarray,
    *,
    order: str,
    context_length: int,
    batch_size: int,
    seed: int,
    step: int,
    start_ids: Sequence[int] = (),
    start: OrderStart = OrderStart(),
) -> Batch:
    """Return the training batch of a step.

    Args:
        tokens: a split [N].
        order: "random" draws B positions anew each step, as the torch tutorial does; "permutation" visits
            every window once an epoch, in an order shuffled by seed and epoch. Its windows lie side by side,
            from an offset drawn for each epoch.
        context_length: T.
        batch_size: B.
        seed: origin of the order.
        step: from `start.batch` on; any step can be asked for at any time.
        start_ids: stand before every row.
        start: what a run leaves out, as a model that it starts from had it, or it had itself in batches of
            another size.

    Raises:
        DataError: the split is shorter than a row.
    """
    length = row_length(context_length, start_ids)
    if len(tokens) < length:
        raise DataError(
            f"the training split must have more than context_length ({context_length}) tokens, "
            f"got {len(tokens)}"
        )
    if order == "random":
        generator = np.random.Generator(np.random.Philox(key=[seed, start.sequences + step - start.batch]))
        begin_B = generator.integers(0, len(tokens) - length + 1, batch_size)
    else:
        # Without start ids a text's very first token is no target, nor is that of a window.
        given = 0 if start_ids else 1
        index_B = start.sequences + (step - start.batch) * batch_size + np.arange(batch_size)
        begin_B = _permuted_begins(len(tokens) - given, length - given, index_B, seed)
    text_BL = tokens[begin_B[:, None] + np.arange(length)]
    return text_batch(text_BL, np.ones(text_BL.shape, np.float32), start_ids)


def whole_epochs(sequences: int, num_tokens: int, context_length: int, start_ids: Sequence[int] = ()) -> int:
    """So many sequences, or as many more as there are to the end of an epoch of a split in "permutation"."""
    given = 0 if start_ids else 1
    windows = _num_windows(num_tokens - given, row_length(context_length, start_ids) - given)
    return -(-sequences // windows) * windows


def row_length(context_length: int, start_ids: Sequence[int]) -> int:
    """Return L; DataError where start ids fill the context."""
    if context_length <= len(start_ids):
        raise DataError(
            f"context_length ({context_length}) must exceed the {len(start_ids)} tokens that the tokenizer "
            "puts before every text"
        )
    return context_length + 1 - len(start_ids)


def text_batch(text_BL: np.ndarray, scored_BL: np.ndarray, start_ids: Sequence[int]) -> Batch:
    """Return rows of the start ids and a text, whose tokens are targets where they are scored."""
    start_BS = np.broadcast_to(np.array(start_ids, np.int32), (len(text_BL), len(start_ids)))
    tokens = np.concatenate([start_BS, text_BL.astype(np.int32)], axis=1)
    weights = np.concatenate([np.zeros(start_BS.shape, np.float32), scored_BL], axis=1)
    return Batch(tokens[:, :-1], tokens[:, 1:], weights[:, 1:])


def _num_windows(num_targets: int, each: int) -> int:
    # One window fewer than fits leaves room for the offset, so that borders fall elsewhere in each epoch.
    return max(1, num_targets // each - 1)


def _permuted_begins(num_targets: int, each: int, index_B: np.ndarray, seed: int) -> np.ndarray:
    num_windows = _num_windows(num_targets, each)
    largest_offset = num_targets - num_windows * each
    order = permutation(num_windows, seed)
    window_B = np.array([order[int(index)] for index in index_B])
    offset_B = np.array([_epoch_offset(seed, int(epoch), largest_offset) for epoch in index_B // num_windows])
    return window_B * each + offset_B


@lru_cache(maxsize=8)
def permutation(num_windows: int, seed: int) -> Any:
    """Return numbers below `num_windows` by position, over endless epochs that are each shuffled anew."""
    import grain

    return grain.MapDataset.range(num_windows).seed(seed).shuffle().repeat()


@lru_cache(maxsize=1024)
def _epoch_offset(seed: int, epoch: int, largest: int) -> int:
    return int(np.random.Generator(np.random.Philox(key=[seed, epoch])).integers(0, largest + 1))
