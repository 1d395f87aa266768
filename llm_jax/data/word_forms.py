"""Fields that follow from how words are written, as taggers read them (Honnibal and Montani 2017, spaCy)."""

import re
from collections.abc import Callable, Mapping, Sequence

_AFFIX = 3  # letters of the longest prefix and suffix
_WINDOW = 2  # words on either side
_EDGE = "^"  # stands before the first word and after the last


def _norms(words: Sequence[str]) -> list[str]:
    return [re.sub(r"\d", "0", word.lower()) for word in words]


def _prefixes(words: Sequence[str]) -> list[str]:
    return [" ".join(norm[:size] for size in range(1, min(_AFFIX, len(norm)) + 1)) for norm in _norms(words)]


def _suffixes(words: Sequence[str]) -> list[str]:
    return [" ".join(norm[-size:] for size in range(1, min(_AFFIX, len(norm)) + 1)) for norm in _norms(words)]


def _shapes(words: Sequence[str]) -> list[str]:
    """Letters as X or x, digits as 0, each sort three times at most in a row."""
    found = []
    for word in words:
        plain = re.sub(r"\d", "0", re.sub(r"[^\W\d_]", lambda letter: "xX"[letter[0].isupper()], word))
        found.append(re.sub(r"(.)\1{3,}", r"\1\1\1", plain))
    return found


def _pairs(words: Sequence[str]) -> list[str]:
    """Each word with the one before, and with the one after."""
    around = [_EDGE, *_norms(words), _EDGE]
    pairs = [f"{first}_{second}" for first, second in zip(around[:-1], around[1:], strict=True)]
    return [f"<{before} >{after}" for before, after in zip(pairs[:-1], pairs[1:], strict=True)]


def _windows(words: Sequence[str]) -> list[str]:
    """The two words before and the two after, each with its distance."""
    around = [_EDGE] * _WINDOW + _norms(words) + [_EDGE] * _WINDOW
    distances = [*range(-_WINDOW, 0), *range(1, _WINDOW + 1)]
    return [
        " ".join(f"{distance:+}{around[at + _WINDOW + distance]}" for distance in distances)
        for at in range(len(words))
    ]


# Name of a field -> its value for each word, in parts that are divided by spaces.
FORMS: Mapping[str, Callable[[Sequence[str]], list[str]]] = {
    name: (lambda words, make=make: make(["".join(word.split()) for word in words]))
    for name, make in {
        "norm": _norms,
        "prefix": _prefixes,
        "suffix": _suffixes,
        "shape": _shapes,
        "pairs": _pairs,
        "window": _windows,
    }.items()
}
