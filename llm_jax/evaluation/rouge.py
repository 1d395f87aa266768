"""ROUGE (Lin 2004) of summaries in any language, and the baseline of taking the first sentence.

The scores are those of the library rouge-score, Google's port of the original. Its own tokenizer drops all
that is not ASCII; the one here takes each Chinese or Japanese character as a token and is otherwise the same.

Letters: N rows.
"""

import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from llm_jax.base.errors import UserError
from llm_jax.evaluation.intervals import Estimate, bootstrap

_KINDS = ("rouge1", "rouge2", "rougeL")
# Ideographs, kana and the marks that belong to them: written without spaces between words.
_LETTER = r"[\u3005-\u3007\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]"
_TOKEN = re.compile(rf"{_LETTER}|(?:(?!{_LETTER})[^\W_])+")
_SENTENCE = re.compile(r".*?(?:[.!?]+[\"')\]]*(?=\s|$)|[。！？]+[”’」』）]*|$)", re.DOTALL)


class RougeScores(NamedTuple):
    """Mean F1 over rows with 95 % intervals, between 0 and 1."""

    rouge1: Estimate  # of single tokens
    rouge2: Estimate  # of pairs
    rouge_l: Estimate  # of the longest common subsequence
    rows: np.ndarray  # [N, 3], each row's


class _Tokenizer:
    """What rouge-score asks of a tokenizer."""

    def tokenize(self, text: str) -> list[str]:
        return tokenize(text)


def tokenize(text: str) -> list[str]:
    """Return words and numbers in lower case, and each Chinese or Japanese character by itself."""
    return _TOKEN.findall(text.lower())


def score_rouge(references: Sequence[str], predictions: Sequence[str]) -> RougeScores:
    """Return ROUGE-1, ROUGE-2 and ROUGE-L of predictions; an empty one scores 0.

    Raises:
        ValueError: they differ in number, or there are none.
        UserError: the library is missing.
    """
    try:
        from rouge_score.rouge_scorer import RougeScorer
    except ImportError:
        raise UserError('ROUGE needs the package rouge-score: pip install "llm-jax[eval]"') from None
    if len(references) != len(predictions) or not references:
        raise ValueError(f"got {len(predictions)} predictions for {len(references)} references")
    scorer = RougeScorer(_KINDS, tokenizer=_Tokenizer())
    scores = [scorer.score(*pair) for pair in zip(references, predictions, strict=True)]
    rows = np.array([[score[kind].fmeasure for kind in _KINDS] for score in scores], np.float64)
    one, two, longest = bootstrap(np.ones(len(rows), np.int64), lambda drawn: drawn @ rows / len(rows), 3)
    return RougeScores(one, two, longest, rows)


def lead_1(text: str) -> str:
    """Return a text's first sentence, or first paragraph if none ends in it: the baseline of summaries."""
    paragraph = re.split(r"\n\s*\n", text.strip(), maxsplit=1)[0]
    found = _SENTENCE.match(paragraph)
    return " ".join((found[0] if found else paragraph).split())
