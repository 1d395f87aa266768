"""The key/value cache: what earlier tokens left behind. B batch, S slots, K key/value heads, H head_dim."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from llm_jax.model_config import ModelConfig


class LayerCache(NamedTuple):
    """One layer's keys and values; heads come before slots, so that a head reads its own in one piece."""

    keys: jax.Array  # [B, K, S, H]
    values: jax.Array  # [B, K, S, H]

    def write(self, k_BTKH: jax.Array, v_BTKH: jax.Array, first: jax.Array) -> "LayerCache":
        """The cache with T more slots filled, from `first` on."""

        def put(slots: jax.Array, new: jax.Array) -> jax.Array:
            new = jnp.swapaxes(new, 1, 2).astype(slots.dtype)
            return jax.lax.dynamic_update_slice_in_dim(slots, new, first, axis=2)

        return LayerCache(put(self.keys, k_BTKH), put(self.values, v_BTKH))


class KVCache(NamedTuple):
    """Every layer's cache, each an array of its own to be written in place, and how many slots are filled."""

    layers: tuple[LayerCache, ...]
    length: jax.Array  # [] int32


def init_cache(config: ModelConfig, batch_size: int, num_slots: int) -> KVCache:
    """An empty cache for `batch_size` rows of at most `num_slots` tokens."""
    shape = (batch_size, config.kv_heads, num_slots, config.head_dim)
    empty = lambda: jnp.zeros(shape, config.dtype)  # noqa: E731
    return KVCache(tuple(LayerCache(empty(), empty()) for _ in range(config.num_layers)), jnp.int32(0))
