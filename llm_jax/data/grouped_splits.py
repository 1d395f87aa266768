"""Splits of labelled rows that do not leak: duplicates, exact and near, fall on one side.

Each label is divided in the wanted fractions as far as whole groups allow. Which group goes where depends on
the seed and on what the rows say, not on where they stand. A label of one group alone cannot be both learned
and asked for: it goes to training and is named.

Letters: N rows.
"""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from llm_jax.base.errors import DataError, UserError
from llm_jax.data.near_duplicates import group_duplicates

Label = str | tuple[str, ...]  # one label, or in a multi-label task any number of them


class SplitReport(NamedTuple):
    """What was found among the rows before they were divided."""

    rows: int
    exact: int  # rows that repeat another one
    near: int  # rows that nearly repeat another one
    groups: int  # of two or more rows, each on one side
    largest: int  # rows of the largest group
    conflicting: int  # groups whose rows do not all have the same label
    alone: tuple[str, ...]  # labels with one group of rows, all of them in training
    is_template: bool  # texts are so alike that only exact duplicates are groups

    def __str__(self) -> str:
        kept = "only exact duplicates kept" if self.is_template else "all kept"
        said = (
            f"{self.rows:,} rows: {self.exact:,} exact and {self.near:,} near duplicates in {self.groups:,} "
            f"groups, {kept} on one side"
        )
        if self.conflicting:
            said += f"; in {self.conflicting:,} of them labels differ"
        if self.alone:
            shown = ", ".join(self.alone[:8]) + (
                f" and {len(self.alone) - 8:,} more" if len(self.alone) > 8 else ""
            )
            said += f"; in training only, for want of a second example: {shown}"
        return said


class Split(NamedTuple):
    """Row numbers of each part, ascending, and what was found."""

    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray
    report: SplitReport


class Folds(NamedTuple):
    """Row numbers that each fold holds out, ascending; the fold trains on all others."""

    held_out: list[np.ndarray]
    report: SplitReport


def split_rows(
    texts: Sequence[str],
    labels: Sequence[Label],
    fractions: tuple[float, float, float] = (0.8, 0.1, 0.1),
    seed: int = 0,
) -> Split:
    """Return rows divided into training, validation and test.

    Args:
        texts: of the rows [N].
        labels: of the rows; a tuple where a row may have several, which counts as its rarest.
        fractions: of the three parts, which sum to 1; those of the last two may be 0.
        seed: of the division.

    Raises:
        UserError: the fractions are not such.
        DataError: there are no rows, or not as many labels.
    """
    if abs(sum(fractions) - 1) > 1e-6 or min(fractions) < 0 or fractions[0] == 0:
        raise UserError(f"fractions of a split must sum to 1, the first above 0, got {fractions}")
    part_N, report = _divide(texts, labels, fractions, seed, first_to=0)
    train, validation, test = (np.flatnonzero(part_N == part) for part in range(3))
    return Split(train, validation, test, report)


def split_folds(texts: Sequence[str], labels: Sequence[Label], folds: int = 5, seed: int = 0) -> Folds:
    """Return rows divided into folds for cross-validation; labels with one group are in no fold.

    Args: as for `split_rows`; folds: 2 or more.

    Raises:
        UserError: there are fewer than two folds.
        DataError: there are no rows, or not as many labels.
    """
    if folds < 2:
        raise UserError(f"folds must be 2 or more, got {folds}")
    part_N, report = _divide(texts, labels, (1 / folds,) * folds, seed, first_to=None)
    return Folds([np.flatnonzero(part_N == fold) for fold in range(folds)], report)


class _Group(NamedTuple):
    rows: list[int]
    stratum: str  # the rarest of its labels
    draw: float  # 0 to 1, by seed and content


def _divide(
    texts: Sequence[str], labels: Sequence[Label], fractions: Sequence[float], seed: int, first_to: int | None
) -> tuple[np.ndarray, SplitReport]:
    """The part [N] of each row. The first group of a label goes to part `first_to`; with None there is no
    such part, and a label's only group goes to none (-1).
    """
    if not texts or len(texts) != len(labels):
        raise DataError(
            f"a split needs rows with a label each, got {len(texts)} rows and {len(labels)} labels"
        )
    found = group_duplicates(texts)
    label_sets = [(label,) if isinstance(label, str) else tuple(label) or ("",) for label in labels]
    frequency = Counter(label for own in label_sets for label in set(own))
    groups = _gather(found.group_N, texts, label_sets, frequency, seed)
    strata: dict[str, list[_Group]] = defaultdict(list)
    for group in groups:
        strata[group.stratum].append(group)
    part_N, carried = np.full(len(texts), -1), np.zeros(len(fractions))
    for _, own in sorted(strata.items()):
        own.sort(key=lambda group: (-int(np.log2(len(group.rows))), group.draw))
        if len(own) == 1:
            part_N[own[0].rows] = -1 if first_to is None else first_to
            continue
        total = sum(len(group.rows) for group in own)
        need = _whole_shares(total, np.array(fractions), carried)
        for index, group in enumerate(own):
            part = (
                first_to if index == 0 and first_to is not None else _draw(need, len(group.rows), group.draw)
            )
            need[part] -= len(group.rows)
            part_N[group.rows] = part
    several = [group for group in groups if len(group.rows) > 1]
    report = SplitReport(
        rows=len(texts),
        exact=found.exact,
        near=found.near,
        groups=len(several),
        largest=max(len(group.rows) for group in groups),
        conflicting=sum(len({frozenset(label_sets[row]) for row in group.rows}) > 1 for group in several),
        alone=tuple(sorted(name for name, own in strata.items() if len(own) == 1)),
        is_template=found.is_template,
    )
    return part_N, report


def _gather(
    group_N: np.ndarray,
    texts: Sequence[str],
    label_sets: list[tuple[str, ...]],
    frequency: Counter,
    seed: int,
) -> list[_Group]:
    rows_of: dict[int, list[int]] = defaultdict(list)
    for row, group in enumerate(group_N.tolist()):
        rows_of[group].append(row)
    groups = []
    for rows in rows_of.values():
        stratum = min((frequency[label], label) for row in rows for label in label_sets[row])[1]
        content = min(texts[row] for row in rows).encode("utf-8", "surrogatepass")
        digest = hashlib.blake2b(content, digest_size=8, key=str(seed).encode()).digest()
        groups.append(_Group(rows, stratum, int.from_bytes(digest, "big") / 2**64))
    return groups


def _whole_shares(total: int, fractions: np.ndarray, carried: np.ndarray) -> np.ndarray:
    """Rows of each part, whole numbers; what rounding leaves is carried to the next label, so that many small
    labels together keep the fractions.
    """
    wanted = fractions * total + carried
    whole = np.floor(wanted + 1e-9)
    for part in np.argsort(-(wanted - whole), kind="stable")[: max(0, round(total - whole.sum()))]:
        whole[part] += 1
    carried[:] = wanted - whole
    return whole


def _draw(need: np.ndarray, size: int, draw: float) -> int:
    """A part with the chance of what it still needs, of those with room for the whole group if any has."""
    # Needs sum to the rows that are left, so one is above 0, and a part that is not wanted has need 0.
    weight = np.where(need >= size, need, 0)
    if not weight.any():
        return int(need.argmax())
    return int(min(np.searchsorted(np.cumsum(weight) / weight.sum(), draw, side="right"), len(need) - 1))
