"""Baselines of labelled tasks learn what can be counted, and are defined where there is nothing to learn."""

import sys

import numpy as np
import pytest

from llm_jax.base.errors import UserError
from llm_jax.evaluation.label_baselines import fit_majority, fit_tfidf
from llm_jax.evaluation.tag_baselines import fit_bigram_tagger, fit_unigram_tagger

TEXTS = ["win a prize now", "free prize call", "see you at home", "come home soon", "lunch at noon"]
LABELS = np.array([3, 3, 1, 1, 1])


def test_majority_gives_the_shares_of_training() -> None:
    assert fit_majority(LABELS, 4)(["a", "b"]).tolist() == [[0, 0.6, 0, 0.4]] * 2
    assert fit_majority(np.array([[1, 0], [1, 1]]), 2)(["a"]).tolist() == [[1, 0.5]]


def test_tfidf_learns_words_and_gives_unseen_labels_nothing() -> None:
    pytest.importorskip("sklearn")
    probabilities = fit_tfidf(TEXTS, LABELS, 4)(["a free prize", "home at noon", ""])
    assert probabilities.argmax(1)[:2].tolist() == [3, 1]
    np.testing.assert_allclose(probabilities.sum(1), 1)
    assert (probabilities[:, [0, 2]] == 0).all()


def test_tfidf_of_several_labels_holds_constant_ones() -> None:
    pytest.importorskip("sklearn")
    labels = np.stack([LABELS == 3, LABELS == 1, np.ones(5), np.zeros(5)], 1).astype(np.int64)
    probabilities = fit_tfidf(TEXTS, labels, 4)(["a free prize"])
    assert (probabilities >= 0.5).tolist() == [[True, False, True, False]]


def test_tfidf_of_one_label_or_of_no_words_is_the_majority() -> None:
    pytest.importorskip("sklearn")
    assert fit_tfidf(TEXTS, np.full(5, 2), 3)(["x"]).tolist() == [[0, 0, 1]]
    assert fit_tfidf(["", " "], np.array([0, 1]), 2)(["x"]).tolist() == [[0.5, 0.5]]


def test_a_missing_library_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.linear_model", None)
    with pytest.raises(UserError, match=r'pip install "llm-jax\[eval\]"'):
        fit_tfidf(TEXTS, LABELS, 4)


SENTENCES = [
    ["the", "dog", "runs"],
    ["the", "run", "ends"],
    ["dogs", "run"],
    ["dogs", "run"],
    ["a", "cat", "jumped"],
]
TAGS = [[0, 1, 2], [0, 1, 2], [1, 2], [1, 2], [0, 1, 2]]


def test_a_unigram_tagger_takes_a_words_commonest_tag_and_knows_endings() -> None:
    tag = fit_unigram_tagger(SENTENCES, TAGS, 4)
    first, none = tag([["the", "run", "frogs"], []])
    assert first.argmax(1).tolist() == [0, 2, 1]
    np.testing.assert_allclose(first.sum(1), 1)
    assert none.shape == (0, 4)


def test_a_bigram_tagger_reads_the_tag_before() -> None:
    first, second, none = fit_bigram_tagger(SENTENCES, TAGS, 4)([["the", "run"], ["dogs", "run"], []])
    assert first.argmax(1).tolist() == [0, 1]
    assert second.argmax(1).tolist() == [1, 2]
    assert none.shape == (0, 4)


def test_a_bigram_tagger_gives_the_sum_over_all_sequences() -> None:
    """Two tags and three tokens: eight sequences, summed one by one."""
    from itertools import product

    from llm_jax.evaluation.tag_baselines import _posterior

    random = np.random.default_rng(0)
    likelihood, first, follows = random.random((3, 2)), random.random(2), random.random((2, 2))
    follows /= follows.sum(1, keepdims=True)
    expected = np.zeros((3, 2))
    for path in product(range(2), repeat=3):
        weight = first[path[0]] * likelihood[range(3), path].prod() * follows[path[:2], path[1:]].prod()
        expected[range(3), path] += weight
    np.testing.assert_allclose(
        _posterior(likelihood, first, follows), expected / expected.sum(1, keepdims=True), rtol=1e-12
    )


def test_a_long_sentence_does_not_underflow() -> None:
    (found,) = fit_bigram_tagger(SENTENCES, TAGS, 3)([["unseen"] * 3000])
    assert np.isfinite(found).all()
