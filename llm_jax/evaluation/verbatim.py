"""Where a model's words come from: what of a text stands verbatim in the training tokens, and where.

A suffix array finds it (Manber and Myers 1993); spans and passages are those of OLMoTrace (Liu et al. 2025).
N training tokens, M tokens of the text that is asked about.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

Ids = np.ndarray | Sequence[int]


class Index(NamedTuple):
    """Training tokens and the order of everything that they end in."""

    tokens: np.ndarray  # [N] uint32, big-endian: so their bytes sort as the ids do
    suffixes: np.ndarray  # [N] int64, where each suffix begins, in the order of the suffixes


class Span(NamedTuple):
    """query[start : start + length] is tokens[position : position + length]."""

    start: int
    length: int
    position: int


class Passage(NamedTuple):
    """A window of the training tokens, tokens[start:end], with the spans in it by position."""

    start: int
    end: int
    rarity: float  # nats: of the query's tokens that its spans cover, under training's unigram counts
    spans: tuple[Span, ...]


def build_index(tokens: Ids) -> Index:
    """Return the suffix array of token ids [N], by prefix doubling: O(N log N) for each doubling up to the
    longest repeat.
    """
    tokens = np.asarray(tokens).astype(">u4")
    num_tokens, width = len(tokens), 1
    # After each round, ranks order the suffixes by their first `width` tokens; equal ranks are ties.
    ranks = np.unique(tokens, return_inverse=True)[1].astype(np.int64)
    suffixes = np.argsort(ranks)
    while num_tokens and ranks[suffixes[-1]] < num_tokens - 1:
        keys = ranks * (num_tokens + 1)
        keys[:-width] += ranks[width:] + 1  # A suffix that ends here comes before all that go on.
        suffixes = np.argsort(keys)
        ordered = keys[suffixes]
        ranks[suffixes] = np.concatenate([[0], np.cumsum(ordered[1:] != ordered[:-1])])
        width *= 2
    return Index(tokens, suffixes)


def occurrences(index: Index, tokens: Ids) -> int:
    """Return how often a sequence stands in training; overlapping ones all count, and an empty one stands
    before every token.
    """
    first, end = _places(index, np.asarray(tokens))
    return end - first


def longest_overlap(index: Index, query: Ids) -> Span:
    """Return the longest part of the query [M] that stands verbatim in training, the first of several; length
    0 where nothing does.
    """
    return max(_longest_from_each(index, query), key=lambda span: span.length, default=Span(0, 0, 0))


def verbatim_spans(index: Index, query: Ids, least: int) -> list[Span]:
    """Return all parts of the query [M] that stand verbatim in training and in no longer such part, by start.

    Args:
        index: of the training tokens.
        query: token ids; those that training lacks match nothing.
        least: fewest tokens of a span, at least 1.
    """
    spans, last_end = [], 0
    for span in _longest_from_each(index, query):
        # Ends never fall back from one start to the next, so a span lies in another one only if it ends where
        # the one before it does.
        if (end := span.start + span.length) > last_end and span.length >= least:
            spans.append(span)
        last_end = end
    return spans


def nearest_passages(index: Index, query: Ids, count: int, context: int) -> list[Passage]:
    """Return the training passages that say most of the query [M], the most telling first.

    Spans are taken in order of rarity, the sum of -log of their tokens' shares of training. A span that
    stands in a passage already found is shown there, else at its first place in the text; passages that
    overlap become one.

    Args:
        index: of the training tokens.
        query: token ids.
        count: most passages.
        context: tokens shown on either side of a span.
    """
    query = np.asarray(query)
    nats = _unigram_nats(index, query)
    spans = verbatim_spans(index, query, 1)
    spans.sort(key=lambda span: -nats[span.start : span.start + span.length].sum())
    passages: list[Passage] = []
    for span in spans:
        found = [other for passage in passages for other in passage.spans]
        placed = span._replace(position=_best_place(index, query, span, passages))
        merged = _merge([*found, placed], context, len(index.tokens), nats)
        if len(merged) <= count:
            passages = merged
    return sorted(passages, key=lambda passage: -passage.rarity)


def _places(index: Index, tokens: np.ndarray) -> tuple[int, int]:
    """The suffixes that begin with these tokens are suffixes[first:end]."""
    wanted, length = _bytes(tokens), len(tokens)

    def beginning(suffix: int) -> bytes:
        return index.tokens[suffix : suffix + length].tobytes()

    return (
        bisect_left(index.suffixes, wanted, key=beginning),
        bisect_right(index.suffixes, wanted, key=beginning),
    )


def _longest_from_each(index: Index, query: Ids) -> list[Span]:
    """For each start in the query, the longest span from there, [M]."""
    query = np.asarray(query)
    spans = []
    for start in range(len(query)):
        rest = query[start:]
        # What shares most with the rest of the query sorts right before or right after it.
        first, _ = _places(index, rest)
        beside = [int(suffix) for suffix in index.suffixes[max(0, first - 1) : first + 1]]
        matches = [Span(start, _common(index.tokens[suffix:], rest), suffix) for suffix in beside]
        spans.append(max([Span(start, 0, 0), *matches], key=lambda span: span.length))
    return spans


def _common(left: np.ndarray, right: np.ndarray) -> int:
    """How many tokens two sequences begin with alike."""
    length = min(len(left), len(right))
    differing = np.flatnonzero(left[:length] != right[:length])
    return int(differing[0]) if len(differing) else length


def _bytes(tokens: np.ndarray) -> bytes:
    return tokens.astype(">u4").tobytes()


def _unigram_nats(index: Index, query: np.ndarray) -> np.ndarray:
    """-log of each query token's share of training, [M]; 0 for those that training lacks, which no span
    has.
    """
    counts = np.array([occurrences(index, [token]) for token in query], int)
    return np.log(np.where(counts, len(index.tokens), 1) / np.maximum(counts, 1))


def _best_place(index: Index, query: np.ndarray, span: Span, passages: list[Passage]) -> int:
    first, end = _places(index, query[span.start : span.start + span.length])
    places = index.suffixes[first:end]
    for passage in passages:
        inside = places[(places >= passage.start) & (places + span.length <= passage.end)]
        if len(inside):
            return int(inside.min())
    return int(places.min())


def _merge(spans: list[Span], context: int, num_tokens: int, nats: np.ndarray) -> list[Passage]:
    """Spans with their context as passages that do not overlap, by position."""
    groups: list[tuple[int, int, list[Span]]] = []
    for span in sorted(spans, key=lambda span: span.position):
        start = max(0, span.position - context)
        end = min(num_tokens, span.position + span.length + context)
        if groups and start < groups[-1][1]:
            before, last_end, inside = groups.pop()
            groups.append((before, max(end, last_end), [*inside, span]))
        else:
            groups.append((start, end, [span]))
    return [Passage(start, end, _rarity(inside, nats), tuple(inside)) for start, end, inside in groups]


def _rarity(spans: list[Span], nats: np.ndarray) -> float:
    covered = {place for span in spans for place in range(span.start, span.start + span.length)}
    return float(sum(nats[place] for place in sorted(covered)))
