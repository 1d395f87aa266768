"""Batches of conversations: several side by side in a row, of whose tokens the assistant's are learnt.

Legend: B batch, T context length, N tokens of a split, R rows of a split.
"""

from collections.abc import Iterator, Sequence
from functools import lru_cache

import numpy as np

from llm_jax.base.batch import Batch
from llm_jax.data.batches import OrderStart, permutation
from llm_jax.data.packing import pack
from llm_jax.data.store import Marks


def planned_rows(edges: np.ndarray, context_length: int) -> list[list[int]]:
    """Return the conversations, by their numbers, that share each row of a split, R rows in all.

    Args:
        edges: where each begins in the split, and the end; none is longer than a row and one token.
        context_length: T.
    """
    return _planned(edges.tobytes(), edges.dtype.str, context_length)


@lru_cache(maxsize=8)
def _planned(edges: bytes, dtype: str, context_length: int) -> list[list[int]]:
    return pack(np.diff(np.frombuffer(edges, dtype).astype(np.int64)) - 1, context_length)


def row_batch(tokens: np.ndarray, marks: Marks, rows: Sequence[Sequence[int]], context_length: int) -> Batch:
    """Return rows as a batch of next tokens, with weight 1 where the next one is learnt.

    Args:
        tokens: of the split, [N].
        marks: of the split.
        rows: of `planned_rows`; an empty one is padding.
        context_length: T.
    """
    shape = len(rows), context_length
    batch = Batch(
        np.zeros(shape, np.int32),
        np.zeros(shape, np.int32),
        np.zeros(shape, np.float32),
        np.broadcast_to(np.arange(shape[1], dtype=np.int32), shape).copy(),  # padding sees itself alone
    )
    for number, row in enumerate(rows):
        at = 0
        for text in row:
            begin, end = int(marks.edges[text]), int(marks.edges[text + 1])
            here = slice(at, at + end - begin - 1)
            batch.tokens[number, here] = tokens[begin : end - 1]
            batch.targets[number, here] = tokens[begin + 1 : end]
            batch.weights[number, here] = marks.targets[begin + 1 : end]
            batch.begins[number, here] = at
            at = here.stop
    return batch


def batch_at(
    tokens: np.ndarray,
    marks: Marks,
    context_length: int,
    *,
    batch_size: int,
    seed: int,
    step: int,
    start: OrderStart = OrderStart(),
) -> Batch:
    """Return the training batch of a step: every row once an epoch, in an order shuffled by seed and epoch.

    The arguments are those of `row_batch` and `data.batches.batch_at`.
    """
    rows = planned_rows(marks.edges, context_length)
    order = permutation(len(rows), seed)
    first = start.sequences + (step - start.batch) * batch_size
    return row_batch(tokens, marks, [rows[order[first + at]] for at in range(batch_size)], context_length)


def scoring_batches(
    tokens: np.ndarray, marks: Marks, context_length: int, batch_size: int
) -> Iterator[Batch]:
    """Yield all rows of a split once, in batches of one size, the last filled up with padding."""
    rows = planned_rows(marks.edges, context_length)
    for at in range(0, len(rows), batch_size):
        some = rows[at : at + batch_size]
        yield row_batch(tokens, marks, some + [[]] * (batch_size - len(some)), context_length)
