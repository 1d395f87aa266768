"""Texts of any length side by side in rows of one length, so that little of a batch is padding."""

import bisect
from collections.abc import Sequence

import numpy as np


def pack(lengths: Sequence[int] | np.ndarray, room: int) -> list[list[int]]:
    """Return the texts, by their numbers, that share a row; each is in one, and long rows come first.

    Best fit, the longest text first: it goes where the least room is left after it. Time grows with the
    number of texts times the logarithm of the room.

    Args:
        lengths: tokens of each text, from 1 to `room`.
        room: tokens of a row.
    """
    rows: list[list[int]] = []
    by_room: dict[int, list[int]] = {}  # room left -> rows that have just that
    left: list[int] = []  # the keys, ascending
    for text in np.argsort(-np.asarray(lengths), kind="stable").tolist():
        length = int(lengths[text])
        place = bisect.bisect_left(left, length)
        if place == len(left):
            row, rest = len(rows), room
            rows.append([])
        else:
            rest = left[place]
            row = by_room[rest].pop()
            if not by_room[rest]:
                del by_room[rest], left[place]
        rows[row].append(text)
        if rest := rest - length:
            if rest not in by_room:
                bisect.insort(left, rest)
            by_room.setdefault(rest, []).append(row)
    return rows
