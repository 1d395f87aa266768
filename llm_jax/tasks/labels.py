"""Tasks that tell labels: of a whole text (classification), or of each word of a sentence (tagging).

Both read the residual stream at the last token of each labelled piece; they differ in what pieces are.
Legend: B batch, T tokens, C labels, P labelled pieces.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

import jax
import numpy as np

from llm_jax.base.bars import tracked
from llm_jax.base.batch import Batch
from llm_jax.base.tree import Tree
from llm_jax.config.model import ModelConfig
from llm_jax.config.run import Config
from llm_jax.config.task import TaskConfig
from llm_jax.data import label_batches
from llm_jax.data.batches import OrderStart
from llm_jax.data.label_batches import Reading, scoring_batches
from llm_jax.data.store import Marks, Store
from llm_jax.tasks.label_data import open_labelled
from llm_jax.tasks.task import Metric, Task
from llm_jax.tokenization.protocol import Tokenizer
from llm_jax.training.label_losses import OBJECTIVES, Pooling, batch_scores


def reading_of(config: Config, tokenizer: Tokenizer) -> Reading:
    """Return how a model of this configuration reads a text."""
    task = config.task
    end_ids = tuple(tokenizer.encode("\n").tolist()[:1]) * task.lookahead
    return Reading(config.model.context_length, tuple(tokenizer.start_ids), end_ids, task.read_twice)


def batch_at(config: Config, store: Store, index: int, start: OrderStart) -> Batch:
    """Return the training batch with this index: rows of texts of the training split."""
    marks = store.marks["train"]
    batch = label_batches.batch_at(
        store.tokens("train"),
        marks,
        reading_of(config, store.tokenizer),
        batch_size=config.train.batch_size,
        seed=config.train.seed,
        step=index,
        start=start,
    )
    if config.task.class_weights == "none":
        return batch
    return batch._replace(weights=batch.weights * _balancing(marks, len(store.labels))[batch.targets])


def _balancing(marks: Marks, num_labels: int) -> np.ndarray:
    """Weights [C] float32 under which all labels count alike, and the mean label 1."""
    counts = label_counts(marks, num_labels)
    return (counts.sum() / (np.count_nonzero(counts) * np.maximum(counts, 1))).astype(np.float32)


def label_counts(marks: Marks, num_labels: int) -> np.ndarray:
    """Return how many pieces of a split have each label, [C]."""
    return np.bincount(marks.targets, minlength=num_labels + 1)[1:]


class Told(NamedTuple):
    """What a model tells of the labelled pieces of a split, in its order."""

    places: np.ndarray  # [P] index of each piece's last token that is read, in the split
    labels: np.ndarray  # [P] number of its label
    log_probs: np.ndarray  # [P, C] float32


@partial(jax.jit, static_argnames=("config", "pooling"))
def _log_probs(params: Tree, config: ModelConfig, batch: Batch, pooling: Pooling) -> jax.Array:
    scores_BTC, _ = batch_scores(params, config, batch, None, pooling=pooling)
    return jax.nn.log_softmax(scores_BTC)


def tell(
    params: Tree, config: Config, tokens: np.ndarray, marks: Marks, tokenizer: Tokenizer, *, shown: str = ""
) -> Told:
    """Return what a model tells of a split, or of any texts in its form.

    Args:
        params: of `heads.init_params`.
        config: of the run that trained them.
        tokens: ids of all texts, one after another.
        marks: where texts begin, and where labels are told.
        tokenizer: theirs.
        shown: what a progress bar says; "" shows none.
    """
    reading = reading_of(config, tokenizer)
    size = config.train.eval_batch_size
    batches: Iterator = scoring_batches(tokens, marks, reading, size)
    if shown:
        batches = iter(tracked(list(batches), shown))
    found: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    for rows, batch in batches:
        log_probs_BTC = np.asarray(_log_probs(params, config.model, batch, _pooling(config.task)))
        told = batch.weights > 0
        places = [_places(marks, part) for row in rows for part in row]
        found.append((np.concatenate(places), batch.targets[told], log_probs_BTC[told]))
    joined = [np.concatenate(each) for each in zip(*found, strict=True)]
    order = np.argsort(joined[0], kind="stable")
    return Told(*(each[order] for each in joined))


def _places(marks: Marks, part: label_batches.Part) -> np.ndarray:
    if part.label:
        return np.array([part.end - 1])
    return part.begin + np.flatnonzero(marks.targets[part.begin : part.end])


def evaluate(params: Tree, config: Config, store: Store) -> dict[str, float]:
    """Return loss (nats per label) and accuracy on the validation split."""
    told = tell(
        params,
        config,
        store.tokens("validation"),
        store.marks["validation"],
        store.tokenizer,
        shown="scoring",
    )
    nats = -told.log_probs[np.arange(len(told.labels)), told.labels]
    return {
        "loss": float(nats.mean(dtype=np.float64)),
        "standard_error": float(nats.std(dtype=np.float64) / np.sqrt(len(nats))),
        "accuracy": float(np.mean(told.log_probs.argmax(axis=1) == told.labels)),
    }


def baselines(config: Config, store: Store) -> dict[str, float]:
    """Return nats per label of telling each label as often as training has it, whatever the text."""
    counts = [label_counts(store.marks[split], len(store.labels)) for split in ("train", "validation")]
    shares = (counts[0] + 1) / (counts[0].sum() + len(store.labels))
    return {"label shares": float(-(counts[1] * np.log(shares)).sum() / counts[1].sum())}


def _pooling(task: TaskConfig) -> Pooling:
    return task.pooling if task.name == "classification" else "last"


def _task(config: TaskConfig, unit: str) -> Task:
    return Task(
        OBJECTIVES[_pooling(config)],
        batch_at,
        evaluate,
        (
            Metric("accuracy", "{accuracy:.2%}"),
            Metric("validation loss", "{loss:.4f}", f"± {{standard_error:.3f}} nats per {unit}"),
        ),
        f"accuracy {{accuracy:.2%}}, {{loss:.3f}} nats per {unit}",
        f"nats per {unit}",
        baselines,
        lambda config, store: store.labels,
        open_store=open_labelled,
    )


classification: Callable[[TaskConfig], Task] = partial(_task, unit="text")
tagging: Callable[[TaskConfig], Task] = partial(_task, unit="word")
