"""Batches of labelled texts: each read as a layout says, several side by side in a row.

Legend: B batch, T context length, N tokens of a split, R rows of a split.
"""

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from llm_jax.base.batch import Batch
from llm_jax.base.errors import UserError
from llm_jax.data.batches import OrderStart, permutation
from llm_jax.data.packing import pack
from llm_jax.data.store import Marks


class Reading(NamedTuple):
    """How a model reads a text whose labels it tells."""

    context_length: int
    start_ids: tuple[int, ...]  # before every text
    end_ids: tuple[int, ...]  # after it; a label is read as many tokens after its piece
    twice: bool  # so that labels, which are read in the second copy, depend on all of the text

    @property
    def room(self) -> int:
        """Tokens of a text that fit."""
        around = len(self.start_ids) + len(self.end_ids)
        room = (self.context_length - around) // (2 if self.twice else 1)
        if room < 1:
            raise UserError(
                f"model.context_length ({self.context_length}) must have room for a text's tokens beside "
                f"{around} before and after it"
            )
        return room


class Part(NamedTuple):
    """As much of a text as is read at once."""

    begin: int  # of its tokens, in the split
    end: int
    label: (
        int  # of a piece that is longer than the room, read at the end; 0: labels are where they are marked
    )


@lru_cache(maxsize=8)
def _cut(marks: "_Same", room: int) -> list[Part]:
    edges, targets = marks.value.edges, marks.value.targets
    ends = np.flatnonzero(targets) + 1
    found = []
    for begin, end in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
        while end - begin > room:
            last = int(np.searchsorted(ends, begin + room, "right")) - 1
            if last >= 0 and ends[last] > begin:
                found.append(Part(begin, int(ends[last]), 0))
                begin = int(ends[last])
                continue
            # A piece that does not fit: its beginning is read, and its label there.
            following = int(ends[last + 1]) if last + 1 < len(ends) else end
            label = int(targets[following - 1]) if following <= end else 0
            found.append(Part(begin, begin + room, label))
            begin = min(following, end)
        if begin < end:
            found.append(Part(begin, end, 0))
    return found


class _Same:
    """A split's marks, by identity: they are read-only views of files."""

    def __init__(self, value: Marks):
        self.value = value

    def __hash__(self) -> int:
        return hash(tuple(id(each) for each in self.value))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and all(a is b for a, b in zip(self.value, other.value, strict=True))


@lru_cache(maxsize=8)
def _planned(marks: _Same, reading: Reading) -> list[list[Part]]:
    parts = _cut(marks, reading.room)
    around = len(reading.start_ids) + len(reading.end_ids)
    lengths = [(part.end - part.begin) * (2 if reading.twice else 1) + around for part in parts]
    return [[parts[number] for number in row] for row in pack(lengths, reading.context_length)]


def planned_rows(marks: Marks, reading: Reading) -> list[list[Part]]:
    """Return the parts that share each row of a split, R rows in all."""
    return _planned(_Same(marks), reading)


def row_batch(tokens: np.ndarray, marks: Marks, rows: Sequence[Sequence[Part]], reading: Reading) -> Batch:
    """Return rows as a batch: its targets are numbers of labels, with weight 1 where one is to be told.

    Args:
        tokens: of the split, [N].
        marks: of the split.
        rows: of `planned_rows`; an empty one is padding.
        reading: how texts are read.
    """
    shape = len(rows), reading.context_length
    batch = Batch(
        np.zeros(shape, np.int32),
        np.zeros(shape, np.int32),
        np.zeros(shape, np.float32),
        np.broadcast_to(np.arange(shape[1], dtype=np.int32), shape).copy(),  # padding sees itself alone
        None if marks.factors is None else np.zeros((*shape, marks.factors.shape[1]), np.int32),
    )
    for number, row in enumerate(rows):
        at = 0
        for part in row:
            ids, labels = tokens[part.begin : part.end], marks.targets[part.begin : part.end]
            read = np.concatenate([reading.start_ids, *[ids] * (2 if reading.twice else 1), reading.end_ids])
            end = at + len(read)
            batch.tokens[number, at:end] = read
            batch.begins[number, at:end] = at
            if marks.factors is not None:
                beside = np.concatenate([marks.factors[part.begin : part.end]] * (2 if reading.twice else 1))
                first = at + len(reading.start_ids)
                batch.factors[number, first : first + len(beside)] = beside
            if part.label:
                labels = np.append(np.zeros(len(ids) - 1, labels.dtype), part.label)
            places = np.flatnonzero(labels)
            batch.targets[number, end - len(ids) + places] = labels[places] - 1
            batch.weights[number, end - len(ids) + places] = 1
            at = end
    return batch


def batch_at(
    tokens: np.ndarray,
    marks: Marks,
    reading: Reading,
    *,
    batch_size: int,
    seed: int,
    step: int,
    start: OrderStart = OrderStart(),
) -> Batch:
    """Return the training batch of a step: every row once an epoch, in an order shuffled by seed and epoch.

    The arguments are those of `row_batch` and `data.batches.batch_at`.
    """
    rows = planned_rows(marks, reading)
    order = permutation(len(rows), seed)
    first = start.sequences + (step - start.batch) * batch_size
    return row_batch(tokens, marks, [rows[order[first + at]] for at in range(batch_size)], reading)


def scoring_batches(
    tokens: np.ndarray, marks: Marks, reading: Reading, batch_size: int
) -> Iterator[tuple[list[list[Part]], Batch]]:
    """Yield all rows of a split once, in batches of one size, the last filled up with padding."""
    rows = planned_rows(marks, reading)
    for at in range(0, len(rows), batch_size):
        some = rows[at : at + batch_size]
        filled = some + [[]] * (batch_size - len(some))
        yield some, row_batch(tokens, marks, filled, reading)
