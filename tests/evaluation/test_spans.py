"""Metrics of spans: by hand, beside nervaluate, and for sequences of tags that are broken."""

import random

import pytest

from llm_jax.evaluation.spans import Span, score_segmentation, score_tags, spans_of_tags, spans_of_words


@pytest.mark.parametrize(
    ("tags", "spans"),
    [
        ("", []),
        ("O O", []),
        ("B-PER I-PER O B-LOC", [(0, 2, "PER"), (3, 4, "LOC")]),
        ("B-PER B-PER I-PER", [(0, 1, "PER"), (1, 3, "PER")]),
        ("O I-PER I-PER", [(1, 3, "PER")]),
        ("B-PER I-LOC I-LOC", [(0, 1, "PER"), (1, 3, "LOC")]),
        ("I-PER B-PER", [(0, 1, "PER"), (1, 2, "PER")]),
        ("B-a-b I-a-b", [(0, 2, "a-b")]),
    ],
)
def test_tags_are_spans(tags: str, spans: list[tuple[int, int, str]]) -> None:
    assert spans_of_tags(tags.split()) == [Span(*each) for each in spans]


@pytest.mark.parametrize("tag", ["PER", "S-PER", "B-", "I", ""])
def test_a_tag_that_is_not_iob2_is_refused(tag: str) -> None:
    with pytest.raises(ValueError, match="must be O, B-TYPE or I-TYPE"):
        spans_of_tags(["O", tag])


def test_strict_scores_by_hand() -> None:
    """Of PER one is right, one too short, one of another type; nothing is found of the second sentence."""
    true = [["B-PER", "I-PER", "O", "B-PER", "I-PER", "O", "B-PER"], ["B-LOC"]]
    predicted = [["B-PER", "I-PER", "O", "B-PER", "O", "O", "B-ORG"], ["O"]]
    found = score_tags(true, predicted)
    assert (found.overall.support, found.overall.predicted) == (4, 3)
    assert found.overall.precision.value == pytest.approx(1 / 3)
    assert found.overall.recall.value == pytest.approx(1 / 4)
    assert found.overall.f1.value == pytest.approx(2 / 7)
    assert found.overall.f1.low == 0
    assert found.types["PER"].f1.value == pytest.approx(2 / 5)
    assert found.types["LOC"].f1 == (0, 0, 0)
    assert (found.types["ORG"].support, found.types["ORG"].predicted) == (0, 1)


def random_tags(source: random.Random) -> list[list[str]]:
    tags = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"]
    # Whole sequences only: nervaluate breaks broken ones in its own way.
    sentences = [source.choices(tags, [3, 1, 1, 1, 1], k=9) for _ in range(40)]
    for sentence in sentences:
        for place, tag in enumerate(sentence):
            if tag[0] == "I" and (not place or sentence[place - 1][1:] != tag[1:]):
                sentence[place] = "B" + tag[1:]
    return sentences


def test_strict_scores_are_those_of_nervaluate() -> None:
    evaluator = pytest.importorskip("nervaluate").Evaluator
    source = random.Random(0)
    for _ in range(5):
        true, other = random_tags(source), random_tags(source)
        predicted = [
            first if source.random() < 0.5 else second for first, second in zip(true, other, strict=True)
        ]
        theirs = evaluator(true, predicted, tags=["PER", "LOC"], loader="list").evaluate()
        found = score_tags(true, predicted)
        for ours, strict in (
            (found.overall, theirs["overall"]["strict"]),
            (found.types["PER"], theirs["entities"]["PER"]["strict"]),
        ):
            assert ours.precision.value == pytest.approx(strict.precision)
            assert ours.recall.value == pytest.approx(strict.recall)
            assert ours.f1.value == pytest.approx(strict.f1)


def test_sentences_without_spans_score_nothing_and_break_nothing() -> None:
    found = score_tags([["O"], []], [["O"], []])
    assert found.types == {}
    assert found.overall.f1 == (0, 0, 0)


def test_words_are_spans_of_characters() -> None:
    assert spans_of_words(["同样", "，", "施力"]) == [
        Span(0, 2, "word"),
        Span(2, 3, "word"),
        Span(3, 5, "word"),
    ]
    found = score_segmentation([["同样", "，", "施力", "的"]], [["同样", "，", "施", "力", "的"]])
    assert found.precision.value == pytest.approx(3 / 5)
    assert found.recall.value == pytest.approx(3 / 4)
    assert found.f1.value == pytest.approx(2 / 3)


def test_what_does_not_belong_together_is_refused() -> None:
    with pytest.raises(ValueError, match="sentence 1 must have 2 tags, got 1"):
        score_tags([["O"], ["O", "O"]], [["O"], ["O"]])
    with pytest.raises(ValueError, match="sentence 0 must be of the same text"):
        score_segmentation([["ab"]], [["a", "c"]])
    with pytest.raises(ValueError, match="got none"):
        score_tags([], [])
