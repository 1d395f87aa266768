"""What is asked of decoding, as one record that travels whole, and what decoding reads of a model."""

import dataclasses
from collections.abc import Callable, Sequence
from functools import cached_property, partial
from typing import Protocol, TypedDict

import jax

from llm_jax.base.errors import UserError
from llm_jax.base.tree import Tree
from llm_jax.config.decoding import SamplingConfig
from llm_jax.config.model import ModelConfig
from llm_jax.config.rules import require
from llm_jax.inference.grammar import Constraint, Vocabulary
from llm_jax.model.decoder import unstack_blocks
from llm_jax.model.lora import merged
from llm_jax.tokenization.chat_format import ChatFormat
from llm_jax.tokenization.protocol import Tokenizer


@partial(jax.tree_util.register_dataclass, data_fields=["params"], meta_fields=["config"])
@dataclasses.dataclass(frozen=True)
class Layout:
    """A decoder as decoding reads it; made by `decoding_layout`. To `jit`, its configuration is static."""

    params: Tree
    config: ModelConfig


def decoding_layout(params: Tree, config: ModelConfig) -> Layout:
    """Lay parameters out for decoding, once for many calls.

    Each layer's become arrays of their own, which out of a stack each token would copy, and a tied head
    becomes a kernel [D, V] of its own, which each token would transpose.
    """
    return Layout(_laid_out(params), dataclasses.replace(config, tied_head=False))


@jax.jit
def _laid_out(params: Tree) -> Tree:
    params = merged(params)
    if "head" not in params:
        params = params | {"head": {"kernel": params["token_embedding"]["embedding"].T}}
    return unstack_blocks(params)


class Decodable(Protocol):
    """What decoding reads of a model."""

    @property
    def config(self) -> ModelConfig: ...

    @property
    def tokenizer(self) -> Tokenizer: ...

    @cached_property
    def layout(self) -> Layout: ...

    @cached_property
    def vocabulary(self) -> Vocabulary: ...

    @cached_property
    def chat_format(self) -> ChatFormat: ...


@dataclasses.dataclass(frozen=True)
class Speculation:
    """Several tokens a call of the model, with the same distribution as one by one.

    Args:
        count: how many tokens are proposed at a time.
        draft: a smaller model with the same tokenizer that proposes them; without one, they are what followed
            an earlier match in the text.
        on_call: is told how many tokens each call of the model gave.
    """

    count: int
    draft: Decodable | None = None
    on_call: Callable[[int], None] = lambda given: None

    def __post_init__(self) -> None:
        require({f"speculate ({self.count}) must be at least 1, to propose anything": self.count >= 1})


class TokenSettings(TypedDict, total=False):
    """What a continuation of token ids can be asked for, as keyword arguments: fields of `Generation`, and of
    its sampling.
    """

    max_new_tokens: int
    seed: int
    sampling: SamplingConfig
    temperature: float
    top_k: int
    top_p: float
    min_p: float
    repetition_penalty: float


class GenerationSettings(TokenSettings, total=False):
    """Likewise, of a text's."""

    stop: Sequence[str]
    constraint: Constraint | None
    speculation: Speculation | None


@dataclasses.dataclass(frozen=True)
class Generation:
    """How a prompt is to be continued.

    Args:
        max_new_tokens: the longest continuation.
        sampling: how each token is drawn.
        seed: the same seed, prompts and settings give the same tokens.
        stop: a continuation ends before the first of these texts.
        constraint: what it must match from end to end.
        speculation: several tokens a call, for one prompt.

    Raises:
        UserError: ways of decoding that do not go together.
    """

    max_new_tokens: int = 100
    sampling: SamplingConfig = SamplingConfig()
    seed: int = 0
    stop: Sequence[str] = ()
    constraint: Constraint | None = None
    speculation: Speculation | None = None

    def __post_init__(self) -> None:
        free = self.constraint is None
        require(
            {
                "a constraint (regex, json_schema) does not go together with speculation": free
                or self.speculation is None,
                "a constraint (regex, json_schema) ends the text itself: leave out stop": free
                or not any(self.stop),
            }
        )


def requested(settings: GenerationSettings) -> Generation:
    """Return the request that keyword arguments describe: those of sampling change its record.

    Raises:
        UserError: a setting is not as it must be, or there is none of this name.
    """
    values = dict(settings)
    names = [field.name for field in dataclasses.fields(Generation)]
    draws = {
        field.name: values.pop(field.name)
        for field in dataclasses.fields(SamplingConfig)
        if field.name in values
    }
    if unknown := sorted(values.keys() - set(names)):
        known = [*names, *(field.name for field in dataclasses.fields(SamplingConfig))]
        raise UserError(f"{unknown[0]} must be one of {', '.join(known)}")
    request = Generation(**values)  # type: ignore[arg-type] - of these names alone
    return dataclasses.replace(request, sampling=dataclasses.replace(request.sampling, **draws))
