"""Values of words' fields as numbers, read beside tokens: which there are, and which each token gets.

A field's value is a word for each of its parts, divided by spaces, as the syllables of a pronunciation are.
Legend: N tokens of a split, S slots of a token.
"""

import collections
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

_NOTHING = "_"  # what treebanks write where a field is empty
_LEAST = 2  # of a part in training; rarer ones are as unknown as new ones, so that these mean something
_MOST_SLOTS = 12  # parts of a value that are read

Fields = Mapping[str, Sequence[str]]  # of a text, for each of its pieces


class Factor(NamedTuple):
    """A field, and the parts of its values that are known."""

    name: str
    slots: int  # parts of a value that are read
    parts: tuple[str, ...]


class Factors(NamedTuple):
    """Fields that are read. Number 0 is nothing; then each field has a number for what is unknown, and one
    for each part.
    """

    each: tuple[Factor, ...] = ()

    @property
    def slots(self) -> int:
        """S, numbers of a token."""
        return sum(factor.slots for factor in self.each)

    @property
    def values(self) -> int:
        """How many numbers there are, 0 among them."""
        return sum(1 + len(factor.parts) for factor in self.each) + 1 if self.each else 0

    def encode(self, fields: Fields, lengths: Sequence[int]) -> np.ndarray:
        """Return numbers of a text's tokens, [N, S].

        Args:
            fields: the text's.
            lengths: tokens of each piece, which all get what the piece has.
        """
        rows = np.zeros((len(lengths), self.slots), np.int64)
        slot, first = 0, 1
        for factor in self.each:
            number = {part: first + 1 + at for at, part in enumerate(factor.parts)}
            for row, value in enumerate(fields[factor.name]):
                parts = parts_of(value)[: factor.slots]
                rows[row, slot : slot + len(parts)] = [number.get(part, first) for part in parts]
            slot, first = slot + factor.slots, first + 1 + len(factor.parts)
        return np.repeat(rows, lengths, axis=0)

    def to_list(self) -> list[dict[str, Any]]:
        """Return plain values, which `from_list` takes."""
        return [factor._asdict() for factor in self.each]

    @classmethod
    def from_list(cls, plain: Iterable[Mapping[str, Any]]) -> "Factors":
        """Return what `to_list` has written."""
        return cls(tuple(Factor(each["name"], each["slots"], tuple(each["parts"])) for each in plain))


def parts_of(value: str) -> list[str]:
    """Return the parts of a field's value; none of an empty one."""
    return [] if value == _NOTHING else value.split()


def find_factors(names: Sequence[str], training: Sequence[Fields]) -> Factors:
    """Return fields with the parts that training has."""
    found = []
    for name in names:
        values = [parts_of(value) for fields in training for value in fields[name]]
        counts = collections.Counter(part for parts in values for part in parts)
        slots = min(_MOST_SLOTS, max([1, *map(len, values)]))
        known = sorted(part for part, count in counts.items() if count >= _LEAST)
        found.append(Factor(name, slots, tuple(known)))
    return Factors(tuple(found))
