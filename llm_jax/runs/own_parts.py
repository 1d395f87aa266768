"""Parts of a run that a program hands in: a loss, an optimizer, batches; and what observes it.

No file can hold them: a checkpoint records their names alone, and a run that has some goes on where all of
them are handed in again. Legend: B batch, T tokens.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from llm_jax.base.batch import Batch
from llm_jax.base.errors import UserError
from llm_jax.base.tree import Tree
from llm_jax.config.model import ModelConfig
from llm_jax.config.rules import require
from llm_jax.config.run import Config
from llm_jax.model.checks import check_tokens
from llm_jax.tasks.task import Task
from llm_jax.training.optimizer import Optimizer
from llm_jax.training.state import key_for

# (params, config, batch, dropout_key) -> (sum, weight), two scalars: see `llm_jax.train`.
Loss = Callable[[Tree, ModelConfig, Batch, jax.Array], tuple[Any, Any]]
Batches = Callable[[int], Batch]  # index of a batch, from 0 -> [B, T] arrays
Callback = Callable[[int, Mapping[str, Any]], object]  # step, and the numbers of its line in metrics.jsonl


@dataclasses.dataclass(frozen=True)
class _OwnLoss:
    """A program's loss as steps call it; a value, so that the same loss finds its compiled program."""

    function: Loss

    def __call__(
        self,
        params: Tree,
        config: ModelConfig,
        batch: Batch,
        dropout_key: jax.Array | None,
        first_row: jax.typing.ArrayLike = 0,
        use: Any = None,
    ) -> tuple[jax.Array, jax.Array]:
        del use
        assert dropout_key is not None
        found = self.function(params, config, batch, jax.random.fold_in(dropout_key, first_row))
        if not isinstance(found, tuple) or [jnp.shape(each) for each in found] != [(), ()]:
            got = [jnp.shape(each) for each in found] if isinstance(found, tuple) else type(found).__name__
            raise UserError(
                f"loss must return (sum, weight), two scalars, so that parts of a batch add up; got {got}"
            )
        total, weight = map(jnp.asarray, found)
        return total, weight


class OwnParts(NamedTuple):
    """What a run has from a program in place of what its configuration describes; None where it has not."""

    loss: Loss | None = None
    optimizer: Optimizer | None = None
    batches: Batches | None = None

    def names(self) -> list[str]:
        """Return which there are, as checkpoints record it."""
        return [name for name, part in self._asdict().items() if part is not None]

    def task(self, task: Task) -> Task:
        """Return a task with these parts in place of its own."""
        objective, batches = task.objective, self.batches
        if self.loss is not None:
            objective = dataclasses.replace(objective, loss=_OwnLoss(self.loss))
        if batches is None:
            return dataclasses.replace(task, objective=objective)
        return dataclasses.replace(
            task,
            objective=objective,
            batch_at=lambda config, store, index, start: _batch(config, batches, index),
        )

    def check(self, config: Config, task: Task) -> None:
        """Look at all of them before anything is saved.

        Args:
            config: with its vocabulary.
            task: with these parts.

        Raises:
            UserError, DataError: one is not as it must be.
        """
        require(
            {
                "optimizer must be an optax.GradientTransformation": self.optimizer is None
                or isinstance(self.optimizer, Optimizer),
                "loss must be a function (params, config, batch, dropout_key) -> (sum, weight)": self.loss
                is None
                or callable(self.loss),
                "batches must be a function of the batch's index, so that a resumed run draws the same; of "
                "a list: batches=lambda index: rows[index % len(rows)]": self.batches is None
                or callable(self.batches),
            }
        )
        if self.batches is not None:
            _batch(config, self.batches, 0)
        if self.loss is not None:
            shape = config.train.batch_size // config.train.accumulation_steps, config.model.context_length
            batch = Batch(*(jax.ShapeDtypeStruct(shape, kind) for kind in (np.int32, np.int32, np.float32)))
            init, loss, key = task.objective.init_params, task.objective.loss, key_for(config, 0)
            jax.eval_shape(lambda batch: loss(init(key, config.model), config.model, batch, key), batch)


class Program(NamedTuple):
    """What asks for a run: a command, or a program that calls `llm_jax.train` and goes on after it."""

    goes_on: bool = False
    own: OwnParts = OwnParts()
    callbacks: Sequence[Callback] = ()


def require_same_parts(about: Mapping[str, Any], own: OwnParts) -> None:
    """Raise UserError where a run goes on with other own parts than its newest checkpoint (`about`)
    records.
    """
    recorded, given = about.get("own_parts", []), own.names()
    if recorded != given:
        raise UserError(
            f"the run has {_listed(recorded)} and was asked to go on with {_listed(given)}; own parts are "
            "not saved: call llm_jax.train with the same ones, or give another --train.run"
        )


def _listed(names: Sequence[str]) -> str:
    return f"its own {', '.join(names)}" if names else "no parts of its own"


def _batch(config: Config, batches: Batches, index: int) -> Batch:
    """A program's batch, checked."""
    name, shape = f"batches({index})", (config.train.batch_size, config.model.context_length)
    found = batches(index)
    given = [each for each in found if each is not None] if isinstance(found, tuple) else []
    got = [np.shape(each) for each in given] if given else type(found).__name__
    if got != [shape] * 3:
        raise UserError(
            f"{name} must be a Batch of tokens, targets and weights, each {shape} (batch_size, "
            f"context_length); got {got}"
        )
    tokens, targets, weights = map(np.asarray, found[:3])
    check_tokens(tokens, config.model, f"{name}.tokens")
    check_tokens(targets, config.model, f"{name}.targets")
    return Batch(tokens.astype(np.int32), targets.astype(np.int32), weights.astype(np.float32))
