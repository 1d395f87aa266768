"""Checks on the host: JAX clamps or drops an index out of range, and narrows numbers of 64 bits unless told
otherwise. So ids, lengths and types are looked at before they go in.
"""

import numpy as np

from llm_jax.base.devices import check_types
from llm_jax.base.errors import DataError, UserError
from llm_jax.config.model import ModelConfig


def check_precision(config: ModelConfig) -> None:
    """Raise UserError where JAX would compute in a narrower type than the configuration's."""
    check_types([config.dtype], "model.dtype")
    check_types([config.param_dtype], "model.param_dtype")


def check_tokens(tokens: np.ndarray, config: ModelConfig, name: str) -> None:
    """Raise DataError unless every id is a row of the head, UserError if [..., T] exceeds the context.

    Args:
        tokens: integer ids [..., T], not yet narrowed to int32, in which a large one becomes another.
        config: whose `vocab_size` and `context_length` hold.
        name: what the ids are, for the message.
    """
    if tokens.size and not np.issubdtype(tokens.dtype, np.integer):
        raise UserError(f"{name} must have whole numbers, got {tokens.dtype}")
    if tokens.shape[-1] > config.context_length:
        raise UserError(
            f"{name} has {tokens.shape[-1]} tokens; must not exceed context_length ({config.context_length})"
        )
    if tokens.size and not (tokens.min() >= 0 and tokens.max() < config.vocab_size):
        bad = tokens[(tokens < 0) | (tokens >= config.vocab_size)].flat[0]
        raise DataError(f"{name} has token id {bad}; ids must be from 0 to {config.vocab_size - 1}")


def check_room(prompt_length: int, more: int, config: ModelConfig, what: str) -> None:
    """Raise UserError unless a prompt and `more` tokens after it fit the context.

    Args:
        prompt_length: in tokens.
        more: how many tokens may come to stand after it.
        config: whose `context_length` holds.
        what: who asks for that, for the message.
    """
    if prompt_length + more > config.context_length:
        raise UserError(
            f"{what} must fit the context: a prompt of {prompt_length} tokens and {more} more exceed "
            f"context_length ({config.context_length}); give a shorter prompt or fewer max_new_tokens"
        )
