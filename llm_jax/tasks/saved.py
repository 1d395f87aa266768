"""A saved model of any task: its configuration, the parameters that are evaluated, what it says of itself."""

from pathlib import Path
from typing import Any, NamedTuple

import jax

from llm_jax.base.tree import Tree
from llm_jax.checkpoints.reader import read_about, read_params
from llm_jax.checkpoints.step_files import checkpoint_directory
from llm_jax.config.load import config_from_dict
from llm_jax.config.run import Config
from llm_jax.tasks.by_name import find_task


class Saved(NamedTuple):
    """What a checkpoint holds of a model."""

    config: Config
    params: Tree
    about: dict[str, Any]  # "config", "tokenizer", "labels", "step", "metrics", versions ...


def read_saved(directory: Path, step: int | None = None) -> Saved:
    """Read a run directory, or one that `convert import` made.

    Args:
        directory: holds `checkpoints/`.
        step: which checkpoint; the newest that verifies without one.

    Raises:
        CheckpointError: there is none, or it is damaged.
        UserError: its task is not one that this version knows.
    """
    checkpoints = checkpoint_directory(directory)
    about = read_about(checkpoints, step)
    config: Config = config_from_dict(about["config"], f"the checkpoint in {directory}")
    begin = find_task(config.task.name).objective.init_params
    wanted = jax.eval_shape(lambda: begin(jax.random.key(0), config.model))
    params, about = read_params(checkpoints, wanted, name=evaluated_part(config), step=step)
    return Saved(config, params, about)


def evaluated_part(config: Config) -> str:
    """Return which part of a saved state holds the parameters that are evaluated."""
    return "ema" if config.optim.ema_decay else "params"
