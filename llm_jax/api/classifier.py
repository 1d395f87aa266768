"""`llm_jax.fit` and `TextClassifier`: labels of texts, in scikit-learn's shape."""

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np

from llm_jax.base import strict_json
from llm_jax.base.errors import UserError
from llm_jax.base.terminal import say
from llm_jax.base.tree import unflatten
from llm_jax.checkpoints.reader import Step
from llm_jax.config.effects import settle
from llm_jax.config.load import config_from_dict
from llm_jax.config.rules import require
from llm_jax.planning.by_labels import fitted_config
from llm_jax.runs.inherited import INHERITED
from llm_jax.runs.train import run as run_training
from llm_jax.tasks.labeller import Labeller, load_labeller
from llm_jax.training.loop import claim_device


class TextClassifier:
    """A classifier of texts, as scikit-learn's pipelines and cross-validation take one.

    >>> texts = [f"{word} day {n}" for n in range(20) for word in ("sunny", "gloomy")]
    >>> moods = ["glad", "sad"] * 20
    >>> model = llm_jax.TextClassifier(settings={"train.steps": 20, "model.d_model": 16})
    >>> model.fit(texts, moods).predict(["a sunny day"]).shape
    Data: ...
    (1,)

    Args:
        settings: of the run, by their names with dots, such as {"train.steps": 100, "train.init_from":
            "runs/first"}; all others follow from the texts, as in `llm-jax fit`.
        run: directory of the run, which goes on where it was stopped; without one, nothing is kept on disk.
    """

    _estimator_type = "classifier"

    def __init__(self, *, settings: Mapping[str, Any] | None = None, run: str | Path | None = None):
        self.settings = settings
        self.run = run

    def fit(self, texts: Sequence[str], labels: Sequence[Any]) -> Self:
        """Train on texts with a label each; a tenth of them is held out to find the best step.

        Args:
            texts: [N] strings.
            labels: [N] strings, numbers or truth values.

        Raises:
            UserError: a setting is not as it must be.
            DataError: there are too few texts, or fewer than two labels.
        """
        texts, shape = _plain_texts(texts), np.shape(labels)
        require({f"texts ({len(texts):,}) and labels {shape} must be as many": shape == (len(texts),)})
        self.classes_, of_row, counts = np.unique(labels, return_inverse=True, return_counts=True)
        with tempfile.TemporaryDirectory() as folder:
            corpus = Path(folder) / "texts.jsonl"
            rows = (
                {"text": text, "label": str(self.classes_[row])}
                for text, row in zip(texts, of_row, strict=True)
            )
            corpus.write_text("".join(strict_json.dumps(row) + "\n" for row in rows), encoding="utf-8")
            self._take(self._trained(corpus, Path(folder)), counts / len(texts))
        return self

    @classmethod
    def load(cls, run: str | Path, step: Step = "best") -> Self:
        """Return the classifier that `fit` or `llm-jax fit` left in a run directory.

        Raises:
            CheckpointError: there is none, or it is damaged.
            UserError: `step` names none, or the model does not tell labels of texts.
        """
        labeller = load_labeller(Path(run), step, say)
        require(
            {f"{run} must hold a model that tells labels of texts, not of words": not labeller.tags_words}
        )
        model = cls(run=run)
        model.classes_ = np.array(labeller.labels)
        model._take(labeller, np.full(len(labeller.labels), 1 / len(labeller.labels)))
        return model

    def predict(self, texts: Sequence[str]) -> np.ndarray:
        """Return the likeliest label of each text, [N]."""
        likeliest = self.predict_proba(texts).argmax(axis=1)
        return self.classes_[likeliest]

    def predict_proba(self, texts: Sequence[str]) -> np.ndarray:
        """Return the probabilities of `classes_` for each text, [N, C] float64; of an empty text, their
        shares in training.

        Raises:
            UserError: the classifier is not fitted.
        """
        require({"the classifier must be fitted before it tells labels": hasattr(self, "_labeller")})
        texts = _plain_texts(texts)
        given = [row for row, text in enumerate(texts) if text.strip()]
        found = np.tile(self._shares, (len(texts), 1))
        for row, told in zip(
            given, self._labeller.probabilities([[texts[row]] for row in given]), strict=True
        ):
            found[row] = 0
            found[row, self._order] = told[0]
        return found

    def score(self, texts: Sequence[str], labels: Sequence[Any]) -> float:
        """Return the accuracy, a share from 0 to 1."""
        return float(np.mean(self.predict(texts) == np.asarray(labels)))

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Return what the classifier was made with."""
        return {"settings": self.settings, "run": self.run}

    def set_params(self, **params: Any) -> Self:
        """Change what the classifier was made with."""
        for name, value in params.items():
            require(
                {f"{name!r:.80} must be one of {', '.join(self.get_params())}": name in self.get_params()}
            )
            setattr(self, name, value)
        return self

    def __sklearn_tags__(self) -> Any:
        from sklearn.utils import ClassifierTags, InputTags, Tags, TargetTags

        return Tags(
            estimator_type="classifier",
            target_tags=TargetTags(required=True),
            classifier_tags=ClassifierTags(),
            input_tags=InputTags(one_d_array=True, two_d_array=False, string=True),
        )

    def __repr__(self) -> str:
        return f"TextClassifier(settings={self.settings}, run={self.run})"

    def _trained(self, corpus: Path, folder: Path) -> Labeller:
        fixed = {
            "data.corpus": str(corpus),
            "data.text_column": "text",
            "task.name": "classification",
            "task.label_column": "label",
        }
        free = {
            "data.prepared": str(folder / "prepared"),
            "task.test_fraction": 0.0,
            "train.run": str(self.run or folder / "run"),
        }
        own = dict(self.settings or {})
        if taken := sorted(fixed.keys() & own.keys()):
            raise UserError(f"settings of a TextClassifier must leave out {', '.join(taken)}")
        values = free | own | fixed
        nested = unflatten({name.replace(".", "/"): value for name, value in values.items()})
        config = config_from_dict(nested, "settings", INHERITED)
        given = dict.fromkeys(values, 0)
        claim_device(say)
        config, _ = settle(fitted_config(config, given, report=say), given, {}, report=say)
        run_training(config, lambda *_: None)
        return load_labeller(config.train.run, "best", say)

    def _take(self, labeller: Labeller, shares: np.ndarray) -> None:
        places = {str(label): at for at, label in enumerate(self.classes_)}
        self._labeller, self._shares = labeller, shares
        self._order = [places[label] for label in labeller.labels]


def fit(
    texts: Sequence[str],
    labels: Sequence[Any],
    *,
    settings: Mapping[str, Any] | None = None,
    run: str | Path | None = None,
) -> TextClassifier:
    """Train a classifier of texts; arguments and errors are those of `TextClassifier` and its `fit`."""
    return TextClassifier(settings=settings, run=run).fit(texts, labels)


def _plain_texts(texts: Sequence[str]) -> list[str]:
    """A list of strings, out of a list, an array or a column of a table."""
    found = list(texts) if not isinstance(texts, str) else []
    require({"texts must be a list of strings": all(isinstance(text, str) for text in found) and found != []})
    return [str(text) for text in found]
