"""Metrics of spans: named entities from IOB2 tags, and words from their characters.

A predicted span counts where its begin, its end and its type are all those of a true one ("strict" in
SemEval 2013, and what CoNLL counts). Intervals draw whole sentences: the spans of one are not independent.

Letters: S sentences, K types, R resamples.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from llm_jax.evaluation.intervals import Estimate, bootstrap, divide

_WORD = "word"


class Span(NamedTuple):
    """Tokens or characters from `begin` up to, without, `end`."""

    begin: int
    end: int
    type: str


class SpanScore(NamedTuple):
    """How well spans are found, with 95 % intervals; 0 where there are none to be found or none were."""

    precision: Estimate
    recall: Estimate
    f1: Estimate
    support: int  # true spans
    predicted: int


class SpanScores(NamedTuple):
    """Scores of all spans, and of each type that occurs or is predicted."""

    overall: SpanScore
    types: dict[str, SpanScore]


def spans_of_tags(tags: Iterable[str]) -> list[Span]:
    """Return the spans of one sentence's IOB2 tags: "B-X" begins one of type X, "I-X" goes on with it.

    Where the sequence is broken, "I-X" after "O" or after another type begins a span, as in CoNLL's own
    evaluation.

    Raises:
        ValueError: a tag is not "O", "B-X" or "I-X".
    """
    spans: list[Span] = []
    begin, open_type = 0, ""
    for place, tag in enumerate([*tags, "O"]):
        prefix, _, type_ = tag.partition("-")
        if tag != "O" and (prefix not in ("B", "I") or not type_):
            raise ValueError(f"a tag must be O, B-TYPE or I-TYPE, got {tag!r}")
        if prefix == "I" and type_ == open_type:
            continue
        if open_type:
            spans.append(Span(begin, place, open_type))
        begin, open_type = place, type_
    return spans


def spans_of_words(words: Iterable[str]) -> list[Span]:
    """Return the characters that each word of a sentence takes, counted without spaces between words."""
    spans, end = [], 0
    for word in words:
        begin, end = end, end + len(word)
        spans.append(Span(begin, end, _WORD))
    return spans


def score_tags(true: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]]) -> SpanScores:
    """Return strict precision, recall and F1 of the spans in IOB2 tags [S][tokens of the sentence].

    Raises:
        ValueError: sentences differ in number or length, or there are none, or a tag is not IOB2.
    """
    for row, (first, second) in enumerate(zip(true, predicted, strict=True)):
        if len(first) != len(second):
            raise ValueError(f"sentence {row} must have {len(first)} tags, got {len(second)}")
    return _score([spans_of_tags(each) for each in true], [spans_of_tags(each) for each in predicted])


def score_segmentation(true: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]]) -> SpanScore:
    """Return precision, recall and F1 of words [S][words of the sentence], by the characters that they take.

    Raises:
        ValueError: sentences differ in number or in their characters, or there are none.
    """
    for row, (first, second) in enumerate(zip(true, predicted, strict=True)):
        if "".join(first) != "".join(second):
            raise ValueError(f"the words of sentence {row} must be of the same text")
    return _score(
        [spans_of_words(each) for each in true], [spans_of_words(each) for each in predicted]
    ).overall


def _score(true: list[list[Span]], predicted: list[list[Span]]) -> SpanScores:
    if not true:
        raise ValueError("there must be sentences to score, got none")
    types = sorted({span.type for spans in (*true, *predicted) for span in spans})
    number = {type_: index for index, type_ in enumerate(types)}
    count_S3K = np.zeros((len(true), 3, len(types)))
    for row, (first, second) in enumerate(zip(map(set, true), map(set, predicted), strict=True)):
        for kind, spans in enumerate((first & second, second, first)):
            for span in spans:
                count_S3K[row, kind, number[span.type]] += 1
    overall = _with_intervals(count_S3K.sum(2, keepdims=True))[0]
    return SpanScores(overall, dict(zip(types, _with_intervals(count_S3K), strict=True)))


def _with_intervals(count_S3K: np.ndarray) -> list[SpanScore]:
    """Scores of K types from hits, predicted and true spans of each sentence."""
    sentences, _, types = count_S3K.shape
    flat = count_S3K.reshape(sentences, 3 * types)

    def score(drawn_RS: np.ndarray) -> np.ndarray:
        hit_RK, predicted_RK, true_RK = (drawn_RS @ flat).reshape(-1, 3, types).transpose(1, 0, 2)
        parts = (
            divide(hit_RK, predicted_RK),
            divide(hit_RK, true_RK),
            divide(2 * hit_RK, predicted_RK + true_RK),
        )
        return np.concatenate(parts, 1)

    if not types:
        return []
    estimates = bootstrap(np.ones(sentences, np.int64), score, 3 * types)
    _, predicted_K, true_K = count_S3K.sum(0)
    return [
        SpanScore(*estimates[kind::types], support=int(true_K[kind]), predicted=int(predicted_K[kind]))
        for kind in range(types)
    ]
