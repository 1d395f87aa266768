"""Metrics of classification: how often labels are right, how sure that is, and where they are most wrong.

A row has one true label of C, or in a multi-label task any number of them (0/1 [N, C]). Whatever has nothing
to divide by is 0, as in scikit-learn, which is the oracle of the tests: precision of a label that is never
predicted, recall of one without examples. Labels that neither occur nor are predicted do not enter the macro
average.

Letters: N rows, C labels, P outcomes, R resamples, U units of the bootstrap.
"""

from typing import NamedTuple

import numpy as np

from llm_jax.evaluation.intervals import Estimate, bootstrap, divide, mean_estimate, wilson

_BINS = 15  # of confidence, for the calibration error
_SURE = np.finfo(np.float64).eps  # probabilities are kept this far from 0 and 1 in losses


class LabelScore(NamedTuple):
    """How well one label is found."""

    precision: float
    recall: float
    f1: float
    support: int  # rows that have it
    predicted: int  # rows for which it was predicted


class LabelScores(NamedTuple):
    """How well all labels are found, with 95 % intervals.

    For a multi-label task, `accuracy` counts rows that are right in all labels, `matthews` and
    `calibration_error` take each label of each row as one decision, and `confusion` is [C, 2, 2].
    """

    rows: int
    accuracy: Estimate
    macro_f1: Estimate
    weighted_f1: Estimate  # weighted by support
    matthews: Estimate  # correlation coefficient, -1 to 1
    log_loss: Estimate  # nats per row
    calibration_error: float  # ECE over 15 bins of equal width (Guo et al. 2017)
    labels: list[LabelScore]  # [C]
    confusion: np.ndarray  # [C, C] int64, true label by predicted label


class _Sample(NamedTuple):
    """Outcomes P, the unit of the bootstrap of each, and how often each unit is in the sample."""

    true: np.ndarray  # [P] or [P, C]
    predicted: np.ndarray
    unit_P: np.ndarray
    count_U: np.ndarray

    @property
    def right_P(self) -> np.ndarray:
        """Whether all of an outcome is right."""
        return (self.true == self.predicted).reshape(len(self.unit_P), -1).all(1)


class _Sums(NamedTuple):
    """Which units add to a label, sorted by label: unit, label, and how much for each time it is drawn."""

    unit: np.ndarray
    label: np.ndarray
    amount: np.ndarray


def score_labels(
    true: np.ndarray, probabilities_NC: np.ndarray, group_N: np.ndarray | None = None
) -> LabelScores:
    """Return the metrics of predicted probabilities; the prediction is the label of the greatest one, or in a
    multi-label task each label of 0.5 or more.

    Args:
        true: label ids [N] below C, or 0/1 [N, C] in a multi-label task.
        probabilities_NC: of each label; rows sum to 1 unless the task is multi-label.
        group_N: of rows that are not independent of one another, such as the words of a sentence, a number
            that they share; intervals then are of groups that are drawn whole.

    Raises:
        ValueError: shapes do not fit, there are no rows, or numbers are no labels or probabilities.
    """
    multi_label = true.ndim == 2
    probabilities_NC = np.asarray(probabilities_NC, np.float64)
    _check(true, probabilities_NC)
    labels = probabilities_NC.shape[1]
    predicted = predict(probabilities_NC, multi_label)
    sample = _units(true, predicted, group_N)
    sums = _sums(sample)
    rows_U = np.bincount(sample.unit_P)
    right_U = np.bincount(sample.unit_P, sample.right_P)

    def score(drawn_RU: np.ndarray) -> np.ndarray:
        counts = [_by_label(drawn_RU, each, labels) for each in sums]
        rows_R = drawn_RU @ rows_U
        from_counts = _from_counts(counts, rows_R, labels if multi_label else 0)
        return np.stack([drawn_RU @ right_U / rows_R, *from_counts], 1)

    accuracy, macro, weighted, matthews = bootstrap(sample.count_U, score, len(sample.unit_P))
    if group_N is None:
        accuracy = wilson(round(float(sample.count_U @ right_U)), len(true))
    return LabelScores(
        rows=len(true),
        accuracy=accuracy,
        macro_f1=macro,
        weighted_f1=weighted,
        matthews=matthews,
        log_loss=_mean_loss(label_losses(true, probabilities_NC), group_N),
        calibration_error=_calibration_error(true, probabilities_NC, predicted),
        labels=_each_label(*(_by_label(sample.count_U[None], each, labels)[0] for each in sums)),
        confusion=_confusion(true, predicted, labels),
    )


def predict(probabilities_NC: np.ndarray, multi_label: bool = False) -> np.ndarray:
    """Return predicted label ids [N], or 0/1 [N, C] in a multi-label task."""
    return (probabilities_NC >= 0.5).astype(np.int64) if multi_label else probabilities_NC.argmax(1)


def label_losses(true: np.ndarray, probabilities_NC: np.ndarray) -> np.ndarray:
    """Return nats [N] of each row's true label; in a multi-label task, their mean over all labels."""
    sure_NC = np.clip(np.asarray(probabilities_NC, np.float64), _SURE, 1 - _SURE)
    if true.ndim == 2:
        return -np.where(true == 1, np.log(sure_NC), np.log1p(-sure_NC)).mean(1)
    return -np.log(sure_NC[np.arange(len(true)), true])


def worst_errors(true: np.ndarray, probabilities_NC: np.ndarray, count: int = 20) -> np.ndarray:
    """Return numbers of at most `count` wrongly labelled rows, first those whose true label costs most."""
    wrong = predict(probabilities_NC, true.ndim == 2) != true
    rows = np.flatnonzero(wrong.any(1) if true.ndim == 2 else wrong)
    return rows[np.argsort(-label_losses(true, probabilities_NC)[rows], kind="stable")[:count]]


def _check(true: np.ndarray, probabilities_NC: np.ndarray) -> None:
    rows, labels = probabilities_NC.shape
    if not rows or not labels:
        raise ValueError(f"there must be rows and labels to score, got {rows} rows of {labels} labels")
    if true.shape not in ((rows,), (rows, labels)):
        raise ValueError(f"true labels must be [{rows}] or [{rows}, {labels}], got {list(true.shape)}")
    if true.min() < 0 or true.max() >= (labels if true.ndim == 1 else 2):
        raise ValueError(f"true labels must be ids of {labels} labels, got {true.min()} to {true.max()}")
    low, high = probabilities_NC.min(), probabilities_NC.max()
    if not (low >= 0 and high <= 1 + 1e-3):  # NaN is refused too
        raise ValueError(f"probabilities must be between 0 and 1, got {low} to {high}")
    if true.ndim == 1 and not np.allclose(probabilities_NC.sum(1), 1, atol=1e-3):
        raise ValueError("the probabilities of a row must sum to 1")


def _units(true: np.ndarray, predicted: np.ndarray, group_N: np.ndarray | None) -> _Sample:
    """Groups with all their rows, or where rows are independent, outcomes that differ and their number."""
    if group_N is not None:
        unit_N = np.unique(group_N, return_inverse=True)[1]
        return _Sample(true, predicted, unit_N, np.ones(unit_N.max() + 1, np.int64))
    both = np.stack([true, predicted], 1)  # [N, 2] or [N, 2, C]
    outcomes, count_U = np.unique(both, axis=0, return_counts=True)
    return _Sample(outcomes[:, 0], outcomes[:, 1], np.arange(len(outcomes)), count_U)


def _sums(sample: _Sample) -> list[_Sums]:
    """What each unit adds to the hits, the predictions and the support of labels."""
    true, predicted = sample.true, sample.predicted
    if true.ndim == 2:
        found = [np.nonzero(each) for each in (true & predicted, predicted, true)]
    else:
        rows, hits = np.arange(len(true)), np.flatnonzero(true == predicted)
        found = [(hits, true[hits]), (rows, predicted), (rows, true)]
    return [_collect(sample.unit_P[rows], label) for rows, label in found]


def _collect(unit: np.ndarray, label: np.ndarray) -> _Sums:
    """Outcomes of one unit and one label as one."""
    pairs, amount = np.unique(np.stack([label, unit], 1), axis=0, return_counts=True)
    return _Sums(pairs[:, 1], pairs[:, 0], amount)


def _by_label(drawn_RU: np.ndarray, sums: _Sums, labels: int) -> np.ndarray:
    """Sums [R, C] over the units drawn."""
    sum_RC = np.zeros((len(drawn_RU), labels))
    if len(sums.unit):
        present, begin = np.unique(sums.label, return_index=True)
        sum_RC[:, present] = np.add.reduceat(drawn_RU[:, sums.unit] * sums.amount, begin, axis=1)
    return sum_RC


def _from_counts(
    counts: list[np.ndarray], rows_R: np.ndarray, cells: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Macro F1, weighted F1 and Matthews [R] from hits, predictions and support [R, C].

    Args: cells: decisions of a row in a multi-label task, each yes or no; 0 where a row is one choice.
    """
    hit_RC, predicted_RC, support_RC = counts
    f1_RC = divide(2 * hit_RC, predicted_RC + support_RC)
    macro_R = divide(f1_RC.sum(1), (predicted_RC + support_RC > 0).sum(1))
    weighted_R = divide((f1_RC * support_RC).sum(1), support_RC.sum(1))
    hit_R, all_R = hit_RC.sum(1), rows_R * max(1, cells)
    if cells:
        yes_R, true_R = predicted_RC.sum(1), support_RC.sum(1)
        over_R = hit_R * all_R - yes_R * true_R
        under_R = yes_R * (all_R - yes_R) * true_R * (all_R - true_R)
    else:  # Gorodkin 2004
        over_R = hit_R * all_R - (predicted_RC * support_RC).sum(1)
        under_R = (all_R**2 - (predicted_RC**2).sum(1)) * (all_R**2 - (support_RC**2).sum(1))
    return macro_R, weighted_R, divide(over_R, np.sqrt(under_R))


def _each_label(hit_C: np.ndarray, predicted_C: np.ndarray, support_C: np.ndarray) -> list[LabelScore]:
    f1_C = divide(2 * hit_C, predicted_C + support_C)
    columns = (divide(hit_C, predicted_C), divide(hit_C, support_C), f1_C, support_C, predicted_C)
    return [
        LabelScore(float(precision), float(recall), float(f1), round(support), round(predicted))
        for precision, recall, f1, support, predicted in zip(*columns, strict=True)
    ]


def _mean_loss(losses_N: np.ndarray, group_N: np.ndarray | None) -> Estimate:
    """The mean over rows; its interval takes the sums of groups as the sample."""
    if group_N is None:
        return mean_estimate(losses_N)
    unit_N = np.unique(group_N, return_inverse=True)[1]
    rows_G, loss_G = np.bincount(unit_N), np.bincount(unit_N, losses_N)
    mean = float(losses_N.mean())
    # Of a ratio of sums, as in `compare` (Cochran 1977, section 6.3).
    spread = mean_estimate((loss_G - mean * rows_G) / rows_G.mean())
    return Estimate(mean, mean + spread.low, mean + spread.high)


def _calibration_error(true: np.ndarray, probabilities_NC: np.ndarray, predicted: np.ndarray) -> float:
    """By how much confidence is off accuracy, in the mean over bins of confidence."""
    if true.ndim == 2:
        confidence = np.maximum(probabilities_NC, 1 - probabilities_NC).ravel()
    else:
        confidence = probabilities_NC.max(1)
    right = (true == predicted).ravel()
    bins = np.minimum((confidence * _BINS).astype(int), _BINS - 1)
    return float(np.abs(np.bincount(bins, confidence - right)).sum() / len(right))


def _confusion(true: np.ndarray, predicted: np.ndarray, labels: int) -> np.ndarray:
    if true.ndim == 1:
        return np.bincount(true * labels + predicted, minlength=labels**2).reshape(labels, labels)
    cells = [((true == i) & (predicted == j)).sum(0) for i in (0, 1) for j in (0, 1)]
    return np.stack(cells, 1).reshape(labels, 2, 2)
