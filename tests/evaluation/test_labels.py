"""Metrics of labels: scikit-learn's on random and awkward rows, and intervals that mean what they say."""

import numpy as np
import pytest

from llm_jax.evaluation.intervals import mean_estimate, wilson
from llm_jax.evaluation.labels import label_losses, score_labels, worst_errors


def random_rows(rows: int, labels: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Some labels without examples, and predictions that are right more often than not."""
    random = np.random.default_rng(seed)
    true = random.integers(0, max(1, labels - 2), rows)
    scores = random.normal(size=(rows, labels))
    scores[np.arange(rows), true] += 1.5
    return true, np.exp(scores) / np.exp(scores).sum(1, keepdims=True)


@pytest.mark.filterwarnings("ignore:A single label was found")  # by scikit-learn, of one row
@pytest.mark.parametrize(("rows", "labels"), [(1, 2), (7, 3), (400, 6), (3000, 1000)])
def test_metrics_are_those_of_scikit_learn(rows: int, labels: int) -> None:
    oracle = pytest.importorskip("sklearn.metrics")
    true, probabilities = random_rows(rows, labels)
    found, predicted = score_labels(true, probabilities), probabilities.argmax(1)
    for ours, theirs in (
        (found.accuracy, oracle.accuracy_score(true, predicted)),
        (found.macro_f1, oracle.f1_score(true, predicted, average="macro", zero_division=0)),
        (found.weighted_f1, oracle.f1_score(true, predicted, average="weighted", zero_division=0)),
        (found.matthews, oracle.matthews_corrcoef(true, predicted)),
        (found.log_loss, oracle.log_loss(true, probabilities, labels=range(labels))),
    ):
        assert ours.value == pytest.approx(theirs, abs=1e-9)
        assert ours.low <= ours.value + 1e-9
        assert ours.low <= ours.high
    each = oracle.precision_recall_fscore_support(true, predicted, labels=range(labels), zero_division=0)
    np.testing.assert_allclose(np.array([row[:4] for row in found.labels]), np.stack(each, 1))
    np.testing.assert_array_equal(
        found.confusion, oracle.confusion_matrix(true, predicted, labels=range(labels))
    )


def test_metrics_of_many_labels_are_those_of_scikit_learn() -> None:
    oracle = pytest.importorskip("sklearn.metrics")
    random = np.random.default_rng(0)
    true = (random.random((300, 5)) < [0.5, 0.2, 0.1, 0, 1]).astype(np.int64)
    probabilities = np.clip(0.6 * true + 0.6 * random.random((300, 5)), 0, 1)
    found, predicted = score_labels(true, probabilities), (probabilities >= 0.5).astype(np.int64)
    assert found.accuracy.value == oracle.accuracy_score(true, predicted)
    weighted = oracle.f1_score(true, predicted, average="weighted", zero_division=0)
    assert found.weighted_f1.value == pytest.approx(weighted)
    assert found.matthews.value == pytest.approx(oracle.matthews_corrcoef(true.ravel(), predicted.ravel()))
    np.testing.assert_array_equal(found.confusion, oracle.multilabel_confusion_matrix(true, predicted))
    each = oracle.precision_recall_fscore_support(true, predicted, zero_division=0)
    np.testing.assert_allclose(np.array([row[:4] for row in found.labels]), np.stack(each, 1))


def test_one_label_alone_is_no_error() -> None:
    found = score_labels(np.zeros(20, np.int64), np.ones((20, 1)))
    assert found.accuracy.value == found.macro_f1.value == 1
    assert found.accuracy.low == pytest.approx(0.8389, abs=1e-4)  # sure of nothing with 20 rows
    assert found.matthews == (0, 0, 0)
    assert found.log_loss.value == pytest.approx(0)


def test_one_decision_a_row_is_scored_as_two_labels_are() -> None:
    true, probabilities = random_rows(300, 4)
    true, yes = (true > 0).astype(np.int64), 1 - probabilities[:, 0]
    one = score_labels(true[:, None], yes[:, None])
    two = score_labels(true, np.stack([1 - yes, yes], 1))
    assert one.accuracy == two.accuracy
    assert one.matthews.value == pytest.approx(two.matthews.value)
    assert one.labels[0] == two.labels[1]
    assert one.calibration_error == pytest.approx(two.calibration_error)


def test_a_label_that_neither_occurs_nor_is_predicted_does_not_enter_the_macro_average() -> None:
    true = np.array([0, 1, 0, 1])
    found = score_labels(true, np.eye(5)[true])
    assert found.macro_f1.value == 1
    assert found.labels[4] == (0, 0, 0, 0, 0)


def test_calibration_error_by_hand() -> None:
    """Three right of four rows at 0.75 are calibrated; one right of two at 0.95 is off by 0.45."""
    sure = np.array([0.75, 0.75, 0.75, 0.75, 0.95, 0.95])
    found = score_labels(np.array([0, 0, 0, 1, 0, 1]), np.stack([sure, 1 - sure], 1))
    assert found.calibration_error == pytest.approx(0.45 * 2 / 6)


def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    """Over samples of rows that are right in 70 %, and of groups that are right or wrong as wholes."""
    random, inside = np.random.default_rng(1), {"rows": 0, "groups": 0, "groups as rows": 0}
    for _ in range(80):
        rows = random.random(60) < 0.7
        groups = np.repeat(random.random(60) < 0.7, 5)
        for name, right, group in (
            ("rows", rows, None),
            ("groups", groups, np.repeat(np.arange(60), 5)),
            ("groups as rows", groups, None),
        ):
            found = score_labels(1 - right.astype(np.int64), np.tile([0.9, 0.1], (len(right), 1)), group)
            inside[name] += found.accuracy.low <= 0.7 <= found.accuracy.high
    assert inside["rows"] >= 70
    assert inside["groups"] >= 69
    assert inside["groups as rows"] < 64


def test_groups_leave_values_as_they_are_and_are_drawn_alike_each_time() -> None:
    true, probabilities = random_rows(300, 4)
    rows, groups = (score_labels(true, probabilities, group) for group in (None, np.arange(300) // 7))
    for name in ("accuracy", "macro_f1", "weighted_f1", "matthews", "log_loss"):
        assert getattr(rows, name).value == pytest.approx(getattr(groups, name).value)
    assert groups.macro_f1 == score_labels(true, probabilities, np.arange(300) // 7).macro_f1


def test_worst_errors_are_wrong_rows_by_the_loss_of_the_true_label() -> None:
    probabilities = np.array([[0.9, 0.1], [0.4, 0.6], [0.01, 0.99], [0.2, 0.8]])
    assert worst_errors(np.array([0, 0, 0, 1]), probabilities).tolist() == [2, 1]
    assert worst_errors(np.array([0, 0, 0, 1]), probabilities, 1).tolist() == [2]
    assert worst_errors(np.array([[1, 0], [0, 0]]), np.array([[0.9, 0.1], [0.9, 0.6]])).tolist() == [1]
    assert np.isfinite(label_losses(np.array([1]), np.array([[1.0, 0.0]]))).all()


def test_wilson_by_hand() -> None:
    assert wilson(0, 10) == (0, 0, pytest.approx(0.2775, abs=1e-4))
    assert wilson(10, 10) == (1, pytest.approx(0.7225, abs=1e-4), 1)
    assert wilson(81, 263) == pytest.approx((0.3080, 0.2553, 0.3662), abs=5e-5)  # Newcombe 1998, table I
    assert str(wilson(1, 2)) == "0.5000 [0.0945, 0.9055]"
    assert mean_estimate(np.array([2.0])) == (2, 2, 2)


@pytest.mark.parametrize(
    ("true", "probabilities", "said"),
    [
        (np.zeros(0, np.int64), np.zeros((0, 2)), "0 rows of 2 labels"),
        (np.array([2]), np.array([[0.5, 0.5]]), "ids of 2 labels"),
        (np.array([0, 1]), np.array([[0.5, 0.5]]), r"must be \[1\]"),
        (np.array([0]), np.array([[np.nan, 0.5]]), "between 0 and 1"),
        (np.array([0]), np.array([[0.5, 0.6]]), "sum to 1"),
    ],
)
def test_what_cannot_be_scored_is_refused(true: np.ndarray, probabilities: np.ndarray, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        score_labels(true, probabilities)
