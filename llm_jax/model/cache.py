"""The key/value cache: what earlier tokens left behind. L layers, B batch, S slots, N heads, H head_dim."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from llm_jax.config import ModelConfig


class KVCache(NamedTuple):
    """Keys and values of every layer, and how many slots are filled."""

    keys: jax.Array  # [L, B, S, N, H]
    values: jax.Array  # [L, B, S, N, H]
    length: jax.Array  # [] int32


def init_cache(config: ModelConfig, batch_size: int, num_slots: int) -> KVCache:
    """An empty cache for `batch_size` rows of at most `num_slots` tokens."""
    shape = (config.num_layers, batch_size, num_slots, config.num_heads, config.head_dim)
    return KVCache(jnp.zeros(shape, config.dtype), jnp.zeros(shape, config.dtype), jnp.int32(0))
