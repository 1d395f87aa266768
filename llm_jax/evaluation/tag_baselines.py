"""Baselines of token labels: what counting the tags of words reaches, alone and with the tag before.

Words that training lacks are known by their ends and their shape, as in TnT (Brants 2000). Each baseline is
fitted on sentences and tag ids and gives a function from sentences to probabilities [T, C] of each.

Letters: T tokens of a sentence, C tags.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence

import numpy as np

Sentence = Sequence[str]
Tagger = Callable[[Sequence[Sentence]], list[np.ndarray]]  # sentences -> probabilities [T, C] of each

_RARE = 10  # words seen at most so often teach what ends and shapes mean
_TRUST = 0.5  # examples that what stands behind a view counts for
_FLAT = 0.1  # of an example, added to each pair of tags


def fit_unigram_tagger(sentences: Sequence[Sentence], tags: Sequence[Sequence[int]], num_tags: int) -> Tagger:
    """Return a tagger that looks at each word alone: how often it had each tag, interpolated with what words
    of its ends and its shape had.

    Args:
        sentences: words of the training sentences.
        tags: ids of each word's tag, below `num_tags`.
        num_tags: C.
    """
    seen = Counter(word for sentence in sentences for word in sentence)
    counts: dict[tuple[str, str], np.ndarray] = defaultdict(lambda: np.zeros(num_tags))
    for sentence, own in zip(sentences, tags, strict=True):
        for place, (word, tag) in enumerate(zip(sentence, own, strict=True)):
            for view in _views(word, place, rare=seen[word] <= _RARE):
                counts[view][tag] += 1
    known, base_C = dict(counts), _shares(tags, num_tags)

    def tag_sentences(sentences: Sequence[Sentence]) -> list[np.ndarray]:
        return [
            np.array(
                [
                    _interpolated(_views(word, place, rare=True), known, base_C)
                    for place, word in enumerate(sentence)
                ]
            ).reshape(-1, num_tags)
            for sentence in sentences
        ]

    return tag_sentences


def fit_bigram_tagger(sentences: Sequence[Sentence], tags: Sequence[Sequence[int]], num_tags: int) -> Tagger:
    """Return a tagger that also knows which tag follows which: a hidden Markov model, of which it gives the
    probability of each tag given the whole sentence (forward and backward sums).

    Args: as for `fit_unigram_tagger`.
    """
    unigram, base_C = fit_unigram_tagger(sentences, tags, num_tags), _shares(tags, num_tags)
    follows_CC, first_C = np.full((num_tags, num_tags), _FLAT), np.full(num_tags, _FLAT)
    for own in tags:
        for before, after in zip(own, own[1:], strict=False):
            follows_CC[before, after] += 1
        for tag in own[:1]:
            first_C[tag] += 1
    follows_CC /= follows_CC.sum(1, keepdims=True)
    first_C /= first_C.sum()

    def tag_sentences(sentences: Sequence[Sentence]) -> list[np.ndarray]:
        # By Bayes, the word's probability given the tag is this but for a factor that all tags share.
        return [_posterior(each / base_C, first_C, follows_CC) for each in unigram(sentences)]

    return tag_sentences


def _shares(tags: Sequence[Sequence[int]], num_tags: int) -> np.ndarray:
    """How common each tag is [C], none of them 0."""
    count_C = np.bincount(np.concatenate([np.asarray(own, np.int64) for own in tags]), minlength=num_tags)
    return (count_C + _FLAT) / (count_C + _FLAT).sum()


def _views(word: str, place: int, rare: bool) -> Iterator[tuple[str, str]]:
    """What a word is known by, the broadest first."""
    if rare:
        shape = re.sub(r"[^\W\d_]+", lambda letters: _case(letters[0]), re.sub(r"\d+", "0", word))
        yield "shape", f"{shape} first" if place == 0 else shape
        for size in range(1, min(len(word), 4) + 1):
            yield f"end {size}", word[-size:].lower()
        yield "begin", word[:1]
    yield "lower", word.lower()
    yield "word", word


def _case(letters: str) -> str:
    return "a" if letters.islower() else "A" if letters.isupper() else "Aa" if letters.istitle() else "aA"


def _interpolated(
    views: Iterator[tuple[str, str]], known: dict[tuple[str, str], np.ndarray], base_C: np.ndarray
) -> np.ndarray:
    """Probabilities [C]: each view's counts, with those of the broader ones as a few examples more."""
    share_C = base_C
    for view in views:
        if (count_C := known.get(view)) is not None:
            share_C = (count_C + _TRUST * share_C) / (count_C.sum() + _TRUST)
    return share_C


def _posterior(likelihood_TC: np.ndarray, first_C: np.ndarray, follows_CC: np.ndarray) -> np.ndarray:
    """Forward and backward sums, each step scaled to 1 so that long sentences do not underflow."""
    length = len(likelihood_TC)
    forward_TC, backward_TC = np.ones_like(likelihood_TC), np.ones_like(likelihood_TC)
    for step in range(length):
        before_C = first_C if step == 0 else forward_TC[step - 1] @ follows_CC
        forward_TC[step] = _scaled(before_C * likelihood_TC[step])
    for step in reversed(range(length - 1)):
        backward_TC[step] = _scaled(follows_CC @ (likelihood_TC[step + 1] * backward_TC[step + 1]))
    both_TC = forward_TC * backward_TC
    return both_TC / both_TC.sum(1, keepdims=True)


def _scaled(weights_C: np.ndarray) -> np.ndarray:
    return weights_C / weights_C.sum()
