"""Other ways of decoding, wired to a loaded model and its tokenizer: speculation and constraints."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from llm_jax.base.errors import UserError
from llm_jax.base.tree import Tree
from llm_jax.config.decoding import SamplingConfig
from llm_jax.config.model import ModelConfig
from llm_jax.config.rules import require
from llm_jax.inference.constrained import constrained_tokens
from llm_jax.inference.decode import Drawn
from llm_jax.inference.grammar import Constraint, GrammarMasks, Vocabulary
from llm_jax.inference.proposers import Draft, PromptLookup
from llm_jax.inference.speculative import Proposer, speculate_tokens
from llm_jax.model.checks import check_room
from llm_jax.tokenization.chat_format import ChatFormat
from llm_jax.tokenization.protocol import Tokenizer, fingerprint


class Decodable(Protocol):
    """What decoding reads of a model."""

    @property
    def config(self) -> ModelConfig: ...

    @property
    def tokenizer(self) -> Tokenizer: ...

    @property
    def laid_out(self) -> Tree:
        """Its parameters, as `inference.decode.lay_out` gives them."""
        ...

    @property
    def vocabulary(self) -> Vocabulary: ...

    @property
    def chat(self) -> ChatFormat: ...


@dataclass(frozen=True)
class Speculation:
    """Several tokens a call of the model, with the same distribution as one by one.

    Args:
        count: how many tokens are proposed at a time.
        draft: a smaller model with the same tokenizer that proposes them; without one, they are what followed
            an earlier match in the text.
        heard: is told how many tokens each call of the model gave.
    """

    count: int
    draft: Decodable | None = None
    heard: Callable[[int], None] = lambda given: None

    def __post_init__(self) -> None:
        require({f"speculate ({self.count}) must be at least 1, to propose anything": self.count >= 1})


def speculated(
    model: Decodable,
    prompt: Sequence[int],
    speculation: Speculation,
    *,
    max_new_tokens: int,
    sampling: SamplingConfig,
    seed: int,
) -> Iterator[int]:
    """The tokens after a prompt.

    Raises:
        UserError: the draft has another vocabulary, or the prompt leaves no room.
    """
    count, draft = speculation.count, speculation.draft
    proposer: Proposer = PromptLookup(count, model.config.vocab_size)
    if draft is not None:
        _check_draft(model, draft)
        check_room(
            len(prompt), max_new_tokens + count, draft.config, "the draft: max_new_tokens and a proposal"
        )
        proposer = Draft(count, replace(draft.config, tied_head=False), sampling)
    calls = speculate_tokens(
        model.laid_out,
        model.config,
        prompt,
        max_new_tokens=max_new_tokens,
        sampling=sampling,
        seed=seed,
        proposer=proposer,
        own={} if draft is None else draft.laid_out,
    )
    return _heard(calls, speculation.heard)


def _heard(calls: Iterator[np.ndarray], heard: Callable[[int], None]) -> Iterator[int]:
    for tokens in calls:
        heard(len(tokens))
        yield from map(int, tokens)


def constrained(
    model: Decodable,
    prompts: Sequence[Sequence[int]],
    constraint: Constraint,
    *,
    max_new_tokens: int,
    sampling: SamplingConfig,
    seed: int,
) -> Iterator[Drawn]:
    """The tokens after each prompt, as `constrained_tokens` yields them, each row a match of its own."""
    return constrained_tokens(
        model.laid_out,
        model.config,
        prompts,
        [GrammarMasks(model.vocabulary, constraint, model.chat.eos_ids) for _ in prompts],
        max_new_tokens=max_new_tokens,
        sampling=sampling,
        seed=seed,
    )


def check_one_way(
    constraint: Constraint | None, speculation: Speculation | None, stop: Sequence[str]
) -> None:
    """Raises UserError for ways of decoding that do not go together."""
    require(
        {
            "a constraint (regex, json_schema) does not go together with speculation": constraint is None
            or speculation is None,
            "a constraint (regex, json_schema) ends the text itself: leave out stop": constraint is None
            or not any(stop),
        }
    )


def _check_draft(model: Decodable, draft: Decodable) -> None:
    if fingerprint(draft.tokenizer) != fingerprint(model.tokenizer):
        raise UserError(
            f"the draft's tokenizer ({draft.tokenizer.name}, {draft.tokenizer.vocab_size} ids) must be the "
            f"model's ({model.tokenizer.name}, {model.tokenizer.vocab_size} ids), but is another"
        )
    if draft.config.vocab_size != model.config.vocab_size:
        raise UserError(
            f"the draft's vocab_size ({draft.config.vocab_size}) must be the model's "
            f"({model.config.vocab_size})"
        )
