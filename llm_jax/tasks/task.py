"""A task as one value: how a token store becomes batches, what training lowers, and how a model is scored.

Training, evaluation, replays and reports know no other word for what a model learns.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from llm_jax.base.batch import Batch
from llm_jax.base.tree import Tree
from llm_jax.config.run import Config
from llm_jax.data.batches import OrderStart
from llm_jax.data.store import Store, prepare_store
from llm_jax.tokenization.chat_format import ChatFormat
from llm_jax.tokenization.protocol import Tokenizer
from llm_jax.training.objective import Objective


@dataclasses.dataclass(frozen=True)
class Metric:
    """A number of an evaluation, as people see it.

    Args:
        label: what it is called.
        number: a format over all of the evaluation's numbers, such as "{loss:.4f}".
        unit: likewise; what stands beside the number.
    """

    label: str
    number: str
    unit: str = ""

    def shown(self, score: Mapping[str, float]) -> tuple[str, str] | None:
        """Return number and unit; None where the evaluation has not got what they name."""
        try:
            return self.number.format(**score), self.unit.format(**score)
        except (KeyError, ValueError, TypeError):
            return None


class Inherited(NamedTuple):
    """What a run's data takes over from the model that it starts from."""

    tokenizer: Tokenizer | None = None
    chat: ChatFormat = ChatFormat()


def _text_store(config: Config, report: Callable[[str], None], inherited: Inherited) -> Store:
    return prepare_store(config.data, report, inherited.tokenizer)


@dataclasses.dataclass(frozen=True)
class Task:
    """What a model learns.

    Args:
        objective: what training lowers.
        batch_at: the training batch with this index, a pure function of it, the configuration and the store.
        evaluate: numbers of a model's parameters on what is held out; the lowest "loss" among them is best.
        metrics: those that people look at, the one that a run is summed up by first.
        unit: of losses, such as "nats per token".
        line: a format over an evaluation's numbers, for the terminal.
        baselines: losses that a model is held against, from the simplest on.
        labels: what outputs stand for, which checkpoints keep; () where the tokenizer says.
        writes_text: whether the model continues text, so that samples can be drawn.
        open_store: makes or opens the data of a configuration; gets what takes remarks, and what comes from
            the model that a run starts from.
    """

    objective: Objective
    batch_at: Callable[[Config, Store, int, OrderStart], Batch]
    evaluate: Callable[[Tree, Config, Store], dict[str, float]]
    metrics: Sequence[Metric]
    line: str
    unit: str = "nats per token"
    baselines: Callable[[Config, Store], dict[str, float]] = lambda config, store: {}
    labels: Callable[[Config, Store], Sequence[str]] = lambda config, store: ()
    writes_text: bool = False
    open_store: Callable[[Config, Callable[[str], None], Inherited], Store] = _text_store
