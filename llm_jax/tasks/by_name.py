"""Every task, by the name that configurations call it."""

from llm_jax.base.errors import UserError
from llm_jax.tasks.language_modelling import LANGUAGE_MODELLING
from llm_jax.tasks.task import Task

TASKS = {
    "language_modelling": LANGUAGE_MODELLING,
}


def find_task(name: str) -> Task:
    """Return a task; UserError where none has this name."""
    if name not in TASKS:
        raise UserError(f"task.name ({name}) must be one of {', '.join(TASKS)}")
    return TASKS[name]
