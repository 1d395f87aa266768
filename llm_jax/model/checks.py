"""Checks on the host: JAX clamps or drops an index out of range, and narrows numbers of 64 bits unless told
otherwise. So ids, lengths and types are looked at before they go in, and whether there is a device at all.
"""

import os
from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from llm_jax.base.errors import DataError, UserError
from llm_jax.config.model import ModelConfig


def check_types(types: Iterable[str], what: str) -> None:
    """Raises UserError where JAX would narrow one of these types.

    Args:
        types: names like "float64".
        what: has them, for the message.
    """
    too_wide = [kind for kind in types if kind.endswith("64")]
    if too_wide and jnp.result_type(float) != jnp.float64:
        raise UserError(
            f"{what} is {too_wide[0]}, which JAX takes only where the environment has JAX_ENABLE_X64=1; set "
            "that, or choose float32"
        )


def first_device() -> Any:
    """JAX's first device; UserError where it has none of the platform that it was told to use."""
    try:
        return jax.devices()[0]
    except (RuntimeError, AssertionError) as error:  # The latter where it knows the platform by name alone.
        wanted = os.environ.get("JAX_PLATFORMS") or "any"
        raise UserError(
            f"JAX must have a device of the platform that it shall use (JAX_PLATFORMS is {wanted}), and has "
            f"none{f': {error}' if str(error) else ''}; JAX_PLATFORMS=cpu takes the processor"
        ) from None


def check_precision(config: ModelConfig) -> None:
    """Raises UserError where JAX would compute in a narrower type than the configuration's."""
    check_types([config.dtype], "model.dtype")
    check_types([config.param_dtype], "model.param_dtype")


def check_tokens(tokens: np.ndarray, config: ModelConfig, name: str) -> None:
    """Raises DataError unless every id is a row of the head, UserError if [..., T] exceeds the context.

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
    """Raises UserError unless a prompt and `more` tokens after it fit the context.

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
