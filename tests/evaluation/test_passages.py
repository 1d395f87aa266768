"""Laws of the search for a text's origin in training, against brute force over texts of few letters."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_jax.evaluation.verbatim import (
    Passage,
    Span,
    build_index,
    longest_overlap,
    nearest_passages,
    occurrences,
    verbatim_spans,
)

# Few letters repeat a lot; 300 needs a second byte, so that order by bytes is order by ids.
IDS = st.sampled_from([0, 1, 300])
TEXTS = st.lists(IDS, max_size=40)
QUERIES = st.lists(IDS | st.just(77), max_size=12)  # 77 is never in training


def stands_at(text: list[int], part: list[int]) -> list[int]:
    """Every place where a part stands in a text."""
    return [place for place in range(len(text)) if text[place : place + len(part)] == part]


def verbatim_parts(text: list[int], query: list[int]) -> set[tuple[int, int]]:
    """(start, end) of every part of the query that stands in the text."""
    return {
        (start, end)
        for start in range(len(query))
        for end in range(start + 1, len(query) + 1)
        if stands_at(text, query[start:end])
    }


@given(TEXTS)
def test_suffixes_are_all_there_and_sorted(text: list[int]) -> None:
    suffixes = build_index(text).suffixes.tolist()
    assert sorted(suffixes) == list(range(len(text)))
    assert all(text[one:] < text[next_:] for one, next_ in zip(suffixes, suffixes[1:], strict=False))


@pytest.mark.parametrize("text", [[5] * 200, list(range(200)), [1, 2, 3, 4, 5] * 40])
def test_suffixes_of_long_repeats_are_sorted(text: list[int]) -> None:
    suffixes = build_index(np.array(text, np.uint16)).suffixes.tolist()
    assert suffixes == sorted(range(len(text)), key=lambda place: text[place:])


@given(TEXTS, QUERIES)
def test_the_longest_overlap_is_brute_forces(text: list[int], query: list[int]) -> None:
    span = longest_overlap(build_index(text), query)
    parts = verbatim_parts(text, query)
    assert span.length == max((end - start for start, end in parts), default=0)
    assert span.start == min((start for start, end in parts if end - start == span.length), default=0)
    assert query[span.start : span.start + span.length] == text[span.position : span.position + span.length]


@given(TEXTS, QUERIES, st.integers(1, 4))
def test_spans_are_verbatim_maximal_and_complete(text: list[int], query: list[int], least: int) -> None:
    spans = verbatim_spans(build_index(text), query, least)
    parts = verbatim_parts(text, query)
    maximal = [
        (start, end)
        for start, end in sorted(parts)
        if end - start >= least
        and not {(start - 1, end), (start, end + 1)} & parts  # a longer part would hold one of these
    ]
    assert [(span.start, span.start + span.length) for span in spans] == maximal
    for span in spans:
        assert span.position in stands_at(text, query[span.start : span.start + span.length])


@given(TEXTS, QUERIES)
def test_occurrences_are_counted_with_their_overlaps(text: list[int], part: list[int]) -> None:
    assert occurrences(build_index(text), part) == len(stands_at(text, part))


@given(st.lists(IDS, min_size=1, max_size=40), st.data())
def test_a_text_cut_from_training_overlaps_wholly(text: list[int], data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(text) - 1))
    query = text[start : data.draw(st.integers(start + 1, len(text)))]
    index = build_index(text)
    assert longest_overlap(index, query)[:2] == (0, len(query))
    assert [span[:2] for span in verbatim_spans(index, query, 1)] == [(0, len(query))]


def test_a_span_may_end_where_training_ends() -> None:
    assert longest_overlap(build_index([1, 2, 3, 4]), [9, 3, 4, 5]) == Span(1, 2, 2)
    assert longest_overlap(build_index([1, 2, 3, 4]), [4]) == Span(0, 1, 3)


@pytest.mark.parametrize("text", [[], [3], [1, 2, 1]])
def test_what_training_lacks_matches_nothing(text: list[int]) -> None:
    index = build_index(text)
    for query in ([], [2**31], [0], [77, 0, 2**31]):
        assert longest_overlap(index, query) == Span(0, 0, 0)
        assert verbatim_spans(index, query, 1) == []
        assert nearest_passages(index, query, 3, 2) == []


@given(TEXTS, QUERIES, st.integers(1, 3), st.integers(0, 3))
def test_passages_are_apart_and_hold_their_spans_and_context(
    text: list[int], query: list[int], count: int, context: int
) -> None:
    index = build_index(text)
    passages = nearest_passages(index, query, count, context)
    maximal = {span[:2] for span in verbatim_spans(index, query, 1)}
    assert bool(passages) == bool(maximal)
    assert len(passages) <= count
    assert [p.rarity for p in passages] == sorted((p.rarity for p in passages), reverse=True)
    by_place = sorted(passages, key=lambda passage: passage.start)
    assert all(one.end <= other.start for one, other in zip(by_place, by_place[1:], strict=False))
    for passage in passages:
        edges = [(max(0, s.position - context), s.position + s.length + context) for s in passage.spans]
        assert passage.start == min(start for start, _ in edges)
        assert passage.end == min(len(text), max(end for _, end in edges))
        for start, length, position in passage.spans:
            assert (start, length) in maximal
            assert query[start : start + length] == text[position : position + length]
    if count == 3 and len(passages) < 3:  # there was room, so no span was left out
        assert {span[:2] for passage in passages for span in passage.spans} == maximal


def test_the_rarest_span_comes_first_and_neighbours_share_a_passage() -> None:
    text = [1] * 20 + [7, 8, 1, 1, 5, 1] + [1] * 10 + [9, 9, 9]
    rare = np.log(len(text) / np.array([1, 1, 1]))
    (passage,) = nearest_passages(build_index(text), [7, 8, 5, 2], count=1, context=2)
    assert passage == Passage(18, 27, pytest.approx(rare.sum()), (Span(0, 2, 20), Span(2, 1, 24)))
    first, second = nearest_passages(build_index(text), [9, 2, 7, 8], count=2, context=0)
    assert (first.spans, second.spans) == ((Span(2, 2, 20),), (Span(0, 1, 36),))


def test_a_span_is_shown_in_a_passage_already_found() -> None:
    text = [1, 2, 3, 3, 3, 3, 6, 7, 8, 1, 2, 4]
    (passage,) = nearest_passages(build_index(text), [6, 7, 8, 5, 1, 2], count=1, context=3)
    assert passage[:2] == (3, 12)
    assert passage.spans == (Span(0, 3, 6), Span(4, 2, 9))


def test_tokens_that_two_spans_share_count_once() -> None:
    text = [7, 8, 1, 8, 5]
    (passage,) = nearest_passages(build_index(text), [7, 8, 5], count=1, context=2)
    assert [span[:2] for span in passage.spans] == [(0, 2), (1, 2)]
    assert passage.rarity == pytest.approx(np.log([5, 5 / 2, 5]).sum())
