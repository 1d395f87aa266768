"""`llm_jax.fit` and `TextClassifier` as scikit-learn, and people who use it, take them."""

from pathlib import Path

import numpy as np
import pytest

import llm_jax
from llm_jax.base.errors import UserError

pytestmark = pytest.mark.compiles

SETTINGS = {
    **{"model.d_model": 16, "model.num_layers": 1, "model.num_heads": 2, "train.batch_size": 8},
    **{"data.tokenizer": "bytes", "train.steps": 20, "optim.learning_rate": 0.02, "model.dropout": 0.0},
}
TEXTS = [f"{word} {n}" for n in range(40) for word in ("aaaa", "zzzz")]
LABELS = [10, 2] * 40  # as numbers they stand in another order than as texts


def test_labels_come_back_as_they_were_given(tmp_path: Path) -> None:
    model = llm_jax.fit(TEXTS, LABELS, settings=SETTINGS, run=tmp_path / "run")
    assert model.classes_.tolist() == [2, 10]
    assert model.predict(["aaaa 99", "zzzz 98"]).tolist() == [10, 2]
    assert model.score(TEXTS, LABELS) == 1
    told = model.predict_proba(["aaaa 99", " "])
    assert told[0, 1] > 0.9
    np.testing.assert_allclose(told[1], [0.5, 0.5])  # nothing can be told of it
    again = llm_jax.TextClassifier.load(tmp_path / "run")
    assert again.predict(["aaaa 99", "zzzz 98"]).tolist() == ["10", "2"]


def test_scikit_learn_takes_it() -> None:
    pytest.importorskip("sklearn", reason="scikit-learn is not installed")
    from sklearn.base import clone, is_classifier
    from sklearn.model_selection import cross_val_score
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import FunctionTransformer

    model = llm_jax.TextClassifier(settings=SETTINGS)
    assert is_classifier(model)
    assert clone(model).get_params() == model.get_params()
    lower = FunctionTransformer(lambda texts: [text.lower() for text in texts])
    pipeline = make_pipeline(lower, model)
    scores = cross_val_score(pipeline, [text.upper() for text in TEXTS], LABELS, cv=2, error_score="raise")
    assert scores.tolist() == [1, 1]


def test_mistakes_are_named() -> None:
    model = llm_jax.TextClassifier(settings=SETTINGS)
    with pytest.raises(UserError, match="must be fitted before it tells labels"):
        model.predict(["a"])
    with pytest.raises(UserError, match=r"texts \(2\) and labels \(1,\) must be as many"):
        model.fit(["a", "b"], [1])
    with pytest.raises(UserError, match="must be a list of strings"):
        model.fit([[1.5, 2]], [1])  # type: ignore[list-item]
    with pytest.raises(UserError, match=r"must leave out task\.name"):
        llm_jax.fit(TEXTS, LABELS, settings={"task.name": "tagging"})
    with pytest.raises(UserError, match="'depth' must be one of settings, run"):
        model.set_params(depth=3)
