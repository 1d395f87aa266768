"""Every task, by the name that configurations call it."""

from collections.abc import Callable

from llm_jax.base.errors import UserError
from llm_jax.config.task import TaskConfig
from llm_jax.tasks.conversation import CONVERSATION
from llm_jax.tasks.labels import classification, tagging
from llm_jax.tasks.language_modelling import LANGUAGE_MODELLING
from llm_jax.tasks.task import Task

TASKS: dict[str, Callable[[TaskConfig], Task]] = {
    "language_modelling": lambda config: LANGUAGE_MODELLING,
    "conversation": lambda config: CONVERSATION,
    "classification": classification,
    "tagging": tagging,
}


def find_task(config: TaskConfig) -> Task:
    """Return the task that a configuration describes; UserError where none has its name."""
    if config.name not in TASKS:
        raise UserError(f"task.name ({config.name}) must be one of {', '.join(TASKS)}")
    return TASKS[config.name](config)
