"""A saved model of any task: its configuration, the parameters that are evaluated, what it says of itself."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax

from llm_jax.base.tree import Tree
from llm_jax.checkpoints.reader import Step, read_about, read_params, said_of_step
from llm_jax.checkpoints.step_files import checkpoint_directory
from llm_jax.config.load import config_from_dict
from llm_jax.config.run import Config
from llm_jax.model.lora import merged, with_adapters
from llm_jax.tasks.by_name import find_task


class Saved(NamedTuple):
    """What a checkpoint holds of a model."""

    config: Config
    params: Tree
    about: dict[str, Any]  # "config", "tokenizer", "labels", "step", "metrics", versions ...


def read_saved(directory: Path, step: Step, report: Callable[[str], None], *, merge: bool = True) -> Saved:
    """Read a run directory, or one that `convert import` made.

    Args:
        directory: holds `checkpoints/`.
        step: which checkpoint: "best", "last" or a number.
        report: gets a line that says which it is, and one for each damaged one that was passed over.
        merge: whether adapters become part of the kernels that they adapt.

    Raises:
        CheckpointError: there is none, or it is damaged.
        UserError: `step` names none, or its task is not one that this version knows.
    """
    checkpoints = checkpoint_directory(directory)
    about = read_about(checkpoints, step)
    config: Config = config_from_dict(about["config"], f"the checkpoint in {directory}")
    wanted = abstract_saved(config)
    part = evaluated_part(config)
    params, about = read_params(checkpoints, wanted, name=part, step=step, report=report)
    return Saved(config, merged(params) if merge else params, as_chosen(directory, step, about, report))


def abstract_saved(config: Config) -> Tree:
    """Return shapes and types of the parameters in a run's checkpoints, as its model reads them."""
    begin, lora = find_task(config.task).objective.init_params, config.optim.lora

    def init(key: jax.Array) -> Tree:
        params = begin(key, config.model)
        return with_adapters(key, params, lora) if lora.rank else params

    return jax.eval_shape(init, jax.random.key(0))


def as_chosen(
    directory: Path, step: Step, about: Mapping[str, Any], report: Callable[[str], None]
) -> dict[str, Any]:
    """Return what a checkpoint says of itself, with the text where the run's newest one has it; say which it
    is, unless it is an import's only one.

    Args:
        directory: holds `checkpoints/`.
        step: what was asked for.
        about: as it was read.
        report: gets the line.
    """
    checkpoints = checkpoint_directory(directory)
    if about["data_fingerprint"] is not None:
        report(f"{directory}: {said_of_step(checkpoints, step, about['step'])}")
    newest = read_about(checkpoints)["config"]["data"]
    return {**about, "config": about["config"] | {"data": newest}}


def evaluated_part(config: Config) -> str:
    """Return which part of a saved state holds the parameters that are evaluated."""
    return "ema" if config.optim.ema_decay else "params"
