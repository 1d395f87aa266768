"""The best checkpoint of a run in training: when it was, in words, and its parameters at the end."""

from collections.abc import Callable
from typing import NamedTuple

from llm_jax.base.tree import Tree
from llm_jax.checkpoints.writer import Checkpoints
from llm_jax.config.run import TrainConfig
from llm_jax.tasks.saved import read_saved
from llm_jax.training.loop import is_over

_RISES = 2  # evaluations in a row above the lowest that are more than chance, and are said


class Best(NamedTuple):
    """The parameters that sample and report are made of."""

    step: int
    params: Tree
    loss: float  # nats per target on what is held out


def rising_line(checkpoints: Checkpoints) -> str:
    """Return a line when evaluations begin to lie above the best one; empty before and afterwards."""
    best = checkpoints.best_step()
    if checkpoints.since_best != _RISES or best is None:
        return ""
    return (
        f"validation has risen since step {best:,}; the best checkpoint is kept; more dropout or text would "
        "help"
    )


def patience_line(settings: TrainConfig, step: int, checkpoints: Checkpoints) -> str:
    """Return a line where it is `train.patience` that ended a run; empty otherwise."""
    if step >= settings.steps or not is_over(settings, step, checkpoints):
        return ""
    best = checkpoints.best_step()
    was = "never a finite number" if best is None else f"best at step {best:,}"
    return (
        f"ended after step {step:,} of {settings.steps:,} by train.patience = {settings.patience}: "
        f"validation was {was}; a larger patience goes on"
    )


def best_of(
    last: Best, settings: TrainConfig, checkpoints: Checkpoints, report: Callable[[str], None]
) -> Best:
    """Return the best checkpoint's parameters, or the last ones where these are the best.

    Args:
        last: after the last step.
        settings: of the run.
        checkpoints: the run's own.
        report: gets a line that says which it is, where it is not the last.

    Raises:
        CheckpointError: it could not be read.
    """
    if checkpoints.best_step() in (None, last.step):
        return last
    saved = read_saved(settings.run, "best", report)
    return Best(saved.about["step"], saved.params, saved.about["score"])
