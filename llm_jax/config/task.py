"""What a model learns."""

import dataclasses
from typing import Literal

from llm_jax.config.rules import Seed, Whole, at_least, fractions, require

LABELLED = ("classification", "tagging")  # tasks whose models tell labels in place of the next token


@dataclasses.dataclass(frozen=True, kw_only=True)
class TaskConfig:
    """The task: what examples are, and what is lowered."""

    name: str = "language_modelling"
    """language_modelling, the next token; conversation, that of the assistant's messages; classification, a
    text's label; tagging, that of each word."""
    prompt_column: str = ""
    """Column of prompts to answer; found where it is plain."""
    answer_column: str = ""
    """Column of their answers, likewise."""
    label_column: str = ""
    """Column of labels in the table to classify, or field of the words to tag; found where it is plain."""
    test_fraction: float = 0.1
    """Share of the labelled texts that neither training nor validation has; `fit` scores the model on it."""
    split_seed: Seed = 0
    """Origin of the split of labelled texts."""
    pooling: Literal["mean", "last"] = "mean"
    """Of which hidden states a text's class is read: the mean of all, or that of the last token."""
    lookahead: Whole = 0
    """Tokens after a piece of text that are read before its label is told."""
    read_twice: bool = False
    """Read a text twice and tell its labels in the second copy, so that they depend on all of it."""
    factors: str = ""
    """Fields of words with embeddings beside those of their tokens, such as upos,entity,pinyin,phones."""
    class_weights: Literal["none", "balanced"] = "none"
    """balanced: rare labels weigh more in the loss, as much in sum as frequent ones."""

    def __post_init__(self) -> None:
        require(
            {"task.name must not be empty": bool(self.name.strip())}
            | at_least(self, 0, "lookahead")
            | fractions(self, "test_fraction")
        )
