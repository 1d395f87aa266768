"""What a model learns."""

import dataclasses

from llm_jax.config.rules import require


@dataclasses.dataclass(frozen=True, kw_only=True)
class TaskConfig:
    """The task: what examples are, and what is lowered."""

    name: str = "language_modelling"
    """What the model learns: language_modelling, the next token of a text."""

    def __post_init__(self) -> None:
        require({"task.name must not be empty": bool(self.name.strip())})
