"""How well a model tells the labels of texts that neither training nor validation had, beside baselines."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from llm_jax.base.errors import UserError
from llm_jax.base.tree import Tree
from llm_jax.config.run import Config
from llm_jax.data.label_files import SEGMENTS
from llm_jax.data.store import Store
from llm_jax.evaluation.intervals import Estimate
from llm_jax.evaluation.label_baselines import fit_majority, fit_tfidf
from llm_jax.evaluation.labels import score_labels, worst_errors
from llm_jax.evaluation.spans import score_segmentation, score_tags
from llm_jax.evaluation.tag_baselines import fit_bigram_tagger, fit_unigram_tagger
from llm_jax.tasks.label_data import Labelled, labelled_texts
from llm_jax.tasks.labeller import segmented
from llm_jax.tasks.labels import tell

_WORST = 20
_AROUND = 5  # pieces on each side of one that is shown


def score_split(
    params: Tree, config: Config, store: Store, report: Callable[[str], None], split: str = "test"
) -> dict[str, Any]:
    """Return metrics with 95 % intervals, as plain values.

    Args:
        params: of the model.
        config: of its run.
        store: its data.
        report: gets a line where a baseline cannot be had.
        split: whose labels are told.
    """
    texts, training = (list(labelled_texts(store, name)) for name in (split, "train"))
    told = tell(
        params, config, store.tokens(split), store.marks[split], store.tokenizer, shown="telling labels"
    )
    probabilities = np.exp(told.log_probs.astype(np.float64))
    found = {"split": split, "texts": len(texts), "labels": list(store.labels)}
    found |= _metrics(config, store.labels, texts, probabilities)
    found["baselines"] = _baselines(config, store.labels, texts, training, report)
    found["worst"] = _worst(store.labels, texts, told.labels, probabilities)
    return found


def _metrics(
    config: Config, labels: Sequence[str], texts: Sequence[Labelled], probabilities: np.ndarray
) -> dict[str, Any]:
    true = np.concatenate([each.labels for each in texts])
    is_tagging = config.task.name == "tagging"
    groups = np.repeat(np.arange(len(texts)), [len(each.pieces) for each in texts]) if is_tagging else None
    scores = score_labels(true, probabilities, groups)
    found: dict[str, Any] = {
        "rows": scores.rows,
        **{
            name: list(getattr(scores, name))
            for name in ("accuracy", "macro_f1", "weighted_f1", "matthews", "log_loss")
        },
        "calibration_error": scores.calibration_error,
        "by_label": [
            {"label": label, **each._asdict()} for label, each in zip(labels, scores.labels, strict=True)
        ],
        "confusion": scores.confusion.tolist(),
    }
    if is_tagging and (spans := _spans(config, labels, texts, probabilities.argmax(axis=1))) is not None:
        found["spans"] = {name: list(value) for name, value in spans.items()}
    return found


def _spans(
    config: Config, labels: Sequence[str], texts: Sequence[Labelled], predicted: np.ndarray
) -> dict[str, Estimate] | None:
    """Precision, recall and F1 of entities, or of words that characters make; None of other tags."""
    parts = np.split(predicted, np.cumsum([len(each.pieces) for each in texts])[:-1])
    true, told = (
        [[labels[int(number)] for number in numbers] for numbers in side]
        for side in ([each.labels for each in texts], parts)
    )
    if config.task.label_column == SEGMENTS:
        words = lambda side: [  # noqa: E731
            list(segmented(text.pieces, [tag == "B" for tag in tags]))
            for text, tags in zip(texts, side, strict=True)
        ]
        scores = score_segmentation(words(true), words(told))
    elif any(label.startswith("B-") for label in labels):
        scores = score_tags(true, told).overall
    else:
        return None
    return {"precision": scores.precision, "recall": scores.recall, "f1": scores.f1}


def _baselines(
    config: Config,
    labels: Sequence[str],
    texts: Sequence[Labelled],
    training: Sequence[Labelled],
    report: Callable[[str], None],
) -> dict[str, Any]:
    """Metrics of what needs no network, by name."""
    count, found = len(labels), {}
    told = np.concatenate([each.labels for each in training])
    if config.task.name == "tagging":
        words = [[piece.strip() for piece in each.pieces] for each in texts]
        learned = [[piece.strip() for piece in each.pieces] for each in training]
        tags = [each.labels.tolist() for each in training]
        rows = {"majority": np.concatenate([fit_majority(told, count)(each) for each in words])}
        for name, fit in (
            ("tag of the word", fit_unigram_tagger),
            ("tags of words in a row", fit_bigram_tagger),
        ):
            rows[name] = np.concatenate(fit(learned, tags, count)(words))
    else:
        asked = [each.pieces[0] for each in texts]
        rows = {"majority": fit_majority(told, count)(asked)}
        try:
            rows["TF-IDF"] = fit_tfidf([each.pieces[0] for each in training], told, count)(asked)
        except UserError as error:
            report(f"warning: {error}")
    for name, probabilities in rows.items():
        metrics = _metrics(config, labels, texts, probabilities)
        found[name] = {key: metrics[key] for key in ("accuracy", "macro_f1", "spans") if key in metrics}
    return found


def _worst(
    labels: Sequence[str], texts: Sequence[Labelled], true: np.ndarray, probabilities: np.ndarray
) -> list[dict[str, Any]]:
    """The most surprising errors: the text around each, what it is and what was told."""
    first = np.append(0, np.cumsum([len(each.pieces) for each in texts]))
    found = []
    for row in worst_errors(true, probabilities, _WORST).tolist():
        number = int(np.searchsorted(first, row, "right")) - 1
        at, pieces = row - int(first[number]), texts[number].pieces
        best = int(probabilities[row].argmax())
        found.append(
            {
                "before": "".join(pieces[max(0, at - _AROUND) : at]),
                "text": pieces[at],
                "after": "".join(pieces[at + 1 : at + 1 + _AROUND]),
                "label": labels[int(true[row])],
                "told": labels[best],
                "probability": round(float(probabilities[row, true[row]]), 6),
            }
        )
    return found
