"""Baselines of text classification: what the commonest label and counted words reach on the same rows.

Each is fitted on texts and labels and gives a function from texts to probabilities [N, C]. Labels are ids
[N], or 0/1 [N, C] in a multi-label task.

Letters: N rows, C labels.
"""

import warnings
from collections.abc import Callable, Sequence

import numpy as np

from llm_jax.base.errors import UserError

_INVERSE_PENALTY = 100.0  # C of scikit-learn's logistic regression
Predictor = Callable[[Sequence[str]], np.ndarray]  # texts -> probabilities [N, C]


def fit_majority(labels: np.ndarray, num_labels: int) -> Predictor:
    """Return a predictor that gives every text the shares of the labels in training, so the commonest wins.

    Args:
        labels: of the training rows, one row or more.
        num_labels: C.
    """
    shares_C = labels.mean(0) if labels.ndim == 2 else np.bincount(labels, minlength=num_labels) / len(labels)
    return lambda texts: np.tile(shares_C, (len(texts), 1))


def fit_tfidf(texts: Sequence[str], labels: np.ndarray, num_labels: int) -> Predictor:
    """Return logistic regression on TF-IDF of words, pairs of words and characters within words; the majority
    where there is nothing to learn: one label alone, or texts without a word.

    Its settings are those that were best on SMS spam by cross-validation (benchmarks/label_baselines.py).

    Args:
        texts: of the training rows.
        labels: of the training rows, one row or more.
        num_labels: C; labels without a training row get probability 0.

    Raises:
        UserError: the library is missing.
    """
    try:
        from sklearn.feature_extraction.text import TfidfVectorizer
        from sklearn.linear_model import LogisticRegression
        from sklearn.multiclass import OneVsRestClassifier
        from sklearn.pipeline import make_union
    except ImportError:
        raise UserError(
            'the TF-IDF baseline needs the package scikit-learn: pip install "llm-jax[eval]"'
        ) from None
    features = make_union(
        TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True),
        TfidfVectorizer(analyzer="char_wb", ngram_range=(1, 4), sublinear_tf=True),
    )
    try:
        rows = features.fit_transform(texts)
    except ValueError:  # no text has a word
        return fit_majority(labels, num_labels)
    classifier = LogisticRegression(C=_INVERSE_PENALTY, max_iter=1000)
    if labels.ndim == 2:
        classifier = OneVsRestClassifier(classifier)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Label .* is present in all training examples")
            warnings.filterwarnings("ignore", "Label not .* is present in all training examples")
            classifier.fit(rows, labels)
        return lambda texts: np.asarray(classifier.predict_proba(features.transform(texts)))
    present = np.unique(labels)
    if len(present) == 1:
        return fit_majority(labels, num_labels)
    classifier.fit(rows, labels)

    def predict(texts: Sequence[str]) -> np.ndarray:
        probabilities_NC = np.zeros((len(texts), num_labels))
        probabilities_NC[:, present] = classifier.predict_proba(features.transform(texts))
        return probabilities_NC

    return predict
