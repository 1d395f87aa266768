"""Text that remembers of each character who wrote it, so that a chat template can do what it likes with
messages exactly as they were typed.

`Traced` is a str: it compares, hashes and prints as one. The operations by which templates put texts together
and take them apart carry origins along; what any other gives is a plain str, whose origin is `TEXT`. So an
operation that is not known here can make a template's marker into text, and never a text into a marker.
"""

from collections.abc import Iterable, Iterator
from typing import Any, SupportsIndex

TEXT, ANSWER, TEMPLATE = range(3)  # a user's or nobody knows whose, the model's own, the template's


class Traced(str):
    """A text with the origin of each of its characters; all are `TEXT` where none are given."""

    __slots__ = ("_origins",)
    _origins: bytes

    def __new__(cls, text: str = "", origins: bytes | None = None) -> "Traced":
        made = super().__new__(cls, text)
        made._origins = bytes(len(made)) if origins is None else origins
        assert len(made._origins) == len(made)
        return made

    def __str__(self) -> str:
        return self  # str() of a subclass gives what this gives, and a template calls it everywhere

    def __iter__(self) -> Iterator[str]:
        return (self[at] for at in range(len(self)))

    def __getitem__(self, key: SupportsIndex | slice) -> str:
        origins = self._origins[key] if isinstance(key, slice) else bytes([self._origins[key]])
        return Traced(super().__getitem__(key), origins)

    def __add__(self, other: str) -> str:
        # jinja2's Markup escapes what it is added to.
        plain = isinstance(other, str) and not hasattr(other, "__html__")
        return concat((self, other)) if plain else NotImplemented

    def __radd__(self, other: str) -> str:
        plain = isinstance(other, str) and not hasattr(other, "__html__")
        return concat((other, self)) if plain else NotImplemented

    def __mul__(self, count: SupportsIndex) -> str:
        return Traced(super().__mul__(count), self._origins * count)

    def __rmul__(self, count: SupportsIndex) -> str:
        return self * count

    def join(self, iterable: Iterable[str], /) -> str:
        parts = list(iterable)
        return Traced(super().join(parts), self._origins.join(map(origins, parts)))

    def strip(self, chars: str | None = None, /) -> str:
        return self.lstrip(chars).rstrip(chars)

    def lstrip(self, chars: str | None = None, /) -> str:
        return self[len(self) - len(super().lstrip(chars)) :]

    def rstrip(self, chars: str | None = None, /) -> str:
        return self[: len(super().rstrip(chars))]

    def removeprefix(self, prefix: str, /) -> str:
        return self[len(self) - len(super().removeprefix(prefix)) :]

    def removesuffix(self, suffix: str, /) -> str:
        return self[: len(super().removesuffix(suffix))]

    def split(self, sep: str | None = None, maxsplit: SupportsIndex = -1) -> list[str]:
        return self._found(super().split(sep, maxsplit), sep)

    def rsplit(self, sep: str | None = None, maxsplit: SupportsIndex = -1) -> list[str]:
        return self._found(super().rsplit(sep, maxsplit), sep)

    def splitlines(self, keepends: bool = False) -> list[str]:
        lines, at = [], 0
        for whole, line in zip(super().splitlines(True), super().splitlines(keepends), strict=True):
            lines.append(self[at : at + len(line)])
            at += len(whole)
        return lines

    def partition(self, sep: str, /) -> tuple[str, str, str]:
        before, middle, _ = super().partition(sep)
        return self._cut(len(before), len(middle))

    def rpartition(self, sep: str, /) -> tuple[str, str, str]:
        before, middle, _ = super().rpartition(sep)
        return self._cut(len(before), len(middle))

    def replace(self, old: str, new: str, count: SupportsIndex = -1, /) -> str:
        if not old:
            return super().replace(old, new, count)
        return concat(part for piece in self.split(old, count) for part in (new, piece))[len(new) :]

    def upper(self) -> str:
        return self._same_letters(super().upper())

    def lower(self) -> str:
        return self._same_letters(super().lower())

    def title(self) -> str:
        return self._same_letters(super().title())

    def capitalize(self) -> str:
        return self._same_letters(super().capitalize())

    def _found(self, parts: list[str], sep: str | None) -> list[str]:
        """The parts of a split as slices; between them is the separator, or white space."""
        slices, at = [], 0
        for part in parts:
            begin = self.index(part, at) if sep is None else at
            slices.append(self[begin : begin + len(part)])
            at = begin + len(part) + len(sep or "")
        return slices

    def _cut(self, first: int, second: int) -> tuple[str, str, str]:
        return self[:first], self[first : first + second], self[first + second :]

    def _same_letters(self, text: str) -> str:
        """A letter in another case is one or more; where all are one, each stands where it stood."""
        return Traced(text, self._origins) if len(text) == len(self) else text


def origins(text: str) -> bytes:
    """Of each character; a plain str is `TEXT`."""
    return text._origins if isinstance(text, Traced) else bytes(len(text))


def traced(text: str, origin: int) -> Traced:
    """Return a text that all comes from one."""
    return Traced(text, bytes([origin]) * len(text))


def concat(values: Iterable[Any]) -> Traced:
    """Return what is written for each value, joined."""
    parts = [str(value) for value in values]
    return Traced("".join(parts), b"".join(map(origins, parts)))


def runs(text: str) -> Iterator[tuple[int, int, int]]:
    """Return begin, end and origin of each longest stretch that comes from one."""
    origin, begin = origins(text), 0
    for end in range(1, len(text) + 1):
        if end == len(text) or origin[end] != origin[begin]:
            yield begin, end, origin[begin]
            begin = end
