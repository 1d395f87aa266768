"""Texts that are the same or nearly so, as groups.

Two texts are exact duplicates where they are equal but for case and spaces, and near ones where they are
equal but for digits and punctuation too, or where their shingles (five characters of what is left) have a
Jaccard similarity of 0.8 or more. Candidates are found by MinHash with banding (Broder 1997; Leskovec et al.,
chapter 3): 16 bands of 4, by which a pair at 0.8 is missed once in 4,000; each candidate is compared exactly.
Time and memory grow with the length of all texts. Groups do not depend on the order of the rows.

Letters: N rows, U texts that differ, M hashes.
"""

import re
import unicodedata
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np

_SHINGLE = 5  # characters
_SIMILAR = 0.8  # Jaccard similarity from which on texts are near duplicates
_BANDS, _ROWS_OF_BAND = 16, 4
_NEIGHBOURS = 32  # in the order of texts that a text is compared with, of those in its bucket
_CHUNK = 2_000_000  # characters hashed at once
_LARGEST_SHARE, _FEW = 0.25, 20  # of rows in one group, from which on it is a template; not of so few rows


class Groups(NamedTuple):
    """Which rows belong together, and how many."""

    group_N: np.ndarray  # a number for each row, the same for rows of one group; from 0 in the order of texts
    exact: int  # rows that repeat another one
    near: int  # further rows that nearly repeat one of another group
    is_template: bool  # texts are so alike that only exact duplicates were joined


def group_duplicates(texts: Sequence[str]) -> Groups:
    """Return the groups of exact and near duplicates among texts [N].

    Where a fourth of the rows or more would become one group (a table's row written out with the names of its
    columns, say), likeness says nothing, and only exact duplicates are joined.
    """
    plain = [" ".join(text.casefold().split()) for text in texts]
    number = {text: index for index, text in enumerate(sorted(set(plain)))}
    exact_N, different = np.array([number[text] for text in plain], np.int64), len(number)
    exact = len(texts) - different
    near_N = _near_groups(texts)
    sizes = np.bincount(near_N)
    if len(texts) >= _FEW and sizes.max() >= _LARGEST_SHARE * len(texts) and len(sizes) < different:
        return Groups(exact_N, exact, 0, is_template=True)
    return Groups(near_N, exact, different - len(sizes), is_template=False)


def normalise(text: str) -> str:
    """Return a text without case, spaces and punctuation, and with 0 for each number; a text
    without letters as it is, without spaces around it.
    """
    plain = unicodedata.normalize("NFKC", text).casefold()
    plain = " ".join(re.sub(r"[\W_]+", " ", re.sub(r"\d+", "0", plain)).split())
    return plain if re.search(r"[^\W\d_]", plain) else " ".join(text.casefold().split())


def _near_groups(texts: Sequence[str]) -> np.ndarray:
    plain = [normalise(text) for text in texts]
    different = sorted(set(plain))
    parent = list(range(len(different)))

    def root(of: int) -> int:
        while parent[of] != of:
            parent[of] = parent[parent[of]]
            of = parent[of]
        return of

    @lru_cache(maxsize=50_000)
    def shingles(of: int) -> frozenset[str]:
        text = different[of]
        return frozenset(text[i : i + _SHINGLE] for i in range(max(1, len(text) - _SHINGLE + 1)))

    for first, second in _candidates(different):
        one, other = root(first), root(second)
        if one != other and _is_similar(shingles(first), shingles(second)):
            parent[max(one, other)] = min(one, other)
    number = {text: root(index) for index, text in enumerate(different)}
    return np.unique(np.array([number[text] for text in plain], np.int64), return_inverse=True)[1]


def _is_similar(first: frozenset[str], second: frozenset[str]) -> bool:
    small, large = sorted((len(first), len(second)))
    if small < _SIMILAR * large:
        return False
    common = len(first & second)
    return common >= _SIMILAR * (small + large - common)


def _candidates(different: list[str]) -> Iterator[tuple[int, int]]:
    """Pairs of texts that agree in all hashes of a band; in a large bucket, neighbours in their order."""
    hash_UM = _min_hashes(different)
    for band in range(_BANDS):
        key_U = np.ascontiguousarray(hash_UM[:, band * _ROWS_OF_BAND : (band + 1) * _ROWS_OF_BAND])
        key_U = key_U.view(np.dtype((np.void, key_U.itemsize * _ROWS_OF_BAND))).reshape(-1)
        _, bucket_U, size = np.unique(key_U, return_inverse=True, return_counts=True)
        order = np.argsort(bucket_U, kind="stable")  # within a bucket, in the order of texts
        end = np.cumsum(size)
        for stop, count in zip(end[size > 1], size[size > 1], strict=True):
            members = order[stop - count : stop].tolist()
            for place, first in enumerate(members):
                for second in members[place + 1 : place + 1 + _NEIGHBOURS]:
                    yield first, second


def _min_hashes(different: list[str]) -> np.ndarray:
    """The least hash of each text's shingles under M functions [U, M] uint32."""
    random = np.random.default_rng(0)
    times_M = random.integers(0, 2**64, _BANDS * _ROWS_OF_BAND, np.uint64) | np.uint64(1)
    plus_M = random.integers(0, 2**64, _BANDS * _ROWS_OF_BAND, np.uint64)
    hash_UM = np.zeros((len(different), len(times_M)), np.uint32)
    for begin, end in _chunks(different):
        # Each text is followed by as many spaces as let every place of it begin a shingle of its own.
        codes = np.frombuffer(
            "".join(text + " " * _SHINGLE for text in different[begin:end]).encode(
                "utf-32-le", "surrogatepass"
            ),
            np.uint32,
        )
        length_U = np.array([len(text) for text in different[begin:end]])
        start_U = np.concatenate([[0], np.cumsum(length_U + _SHINGLE)[:-1]])
        shingle = _mixed(codes)
        for index, (times, plus) in enumerate(zip(times_M, plus_M, strict=True)):
            hashed = ((shingle * times + plus) >> np.uint64(32)).astype(np.uint32)
            # Even places are texts, odd ones the spaces between them.
            edges = np.stack([start_U, start_U + np.maximum(1, length_U - _SHINGLE + 1)], 1).ravel()
            hash_UM[begin:end, index] = np.minimum.reduceat(hashed, edges)[::2]
    return hash_UM


def _chunks(different: list[str]) -> Iterator[tuple[int, int]]:
    """Ranges of texts of about `_CHUNK` characters together."""
    begin, size = 0, 0
    for index, text in enumerate(different):
        size += len(text) + _SHINGLE
        if size >= _CHUNK or index == len(different) - 1:
            yield begin, index + 1
            begin, size = index + 1, 0


def _mixed(codes: np.ndarray) -> np.ndarray:
    """A hash of the shingle at each place, by the finaliser of SplitMix64 (Steele et al. 2014)."""
    padded = np.concatenate([codes, np.zeros(_SHINGLE - 1, np.uint32)]).astype(np.uint64)
    value = np.zeros(len(codes), np.uint64)
    for offset in range(_SHINGLE):
        value = value * np.uint64(0x9E3779B97F4A7C15) + padded[offset : offset + len(codes)] + np.uint64(1)
        value ^= value >> np.uint64(29)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        value = (value ^ (value >> np.uint64(shift))) * np.uint64(factor)
    return value ^ (value >> np.uint64(31))
