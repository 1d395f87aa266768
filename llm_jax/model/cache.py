"""The key/value cache: what earlier tokens left behind. B batch, T tokens, S slots,
K key/value heads, H head_dim, L layers.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp


class LayerCache(NamedTuple):
    """One layer's keys and values; heads come before slots, so that a head reads its own in one piece."""

    keys: jax.Array  # [B, K, S, H]
    values: jax.Array  # [B, K, S, H]

    def write(self, k_BTKH: jax.Array, v_BTKH: jax.Array, first: jax.Array) -> "LayerCache":
        """Return the cache with T more slots filled, from `first` on."""

        def put(slots: jax.Array, new: jax.Array) -> jax.Array:
            new = jnp.swapaxes(new, 1, 2).astype(slots.dtype)
            return jax.lax.dynamic_update_slice_in_dim(slots, new, first, axis=2)

        return LayerCache(put(self.keys, k_BTKH), put(self.values, v_BTKH))


class KVCache(NamedTuple):
    """Every layer's cache, each an array of its own to be written in place, and how many slots are filled."""

    layers: tuple[LayerCache, ...]
    length: jax.Array  # [] int32

    @property
    def num_slots(self) -> int:
        """S."""
        return self.layers[0].keys.shape[2]


def fill_cache(keys_LBTKH: jax.Array, values_LBTKH: jax.Array, num_slots: int) -> KVCache:
    """Return the cache after tokens that were read without one, with room for later ones.

    Args:
        keys_LBTKH: of every layer, as `Activations.blocks` has them.
        values_LBTKH: likewise.
        num_slots: S, at least T.
    """
    num_tokens = keys_LBTKH.shape[2]

    def lay_out(x_BTKH: jax.Array) -> jax.Array:
        return jnp.pad(jnp.swapaxes(x_BTKH, 1, 2), ((0, 0), (0, 0), (0, num_slots - num_tokens), (0, 0)))

    layers = zip(jnp.unstack(keys_LBTKH), jnp.unstack(values_LBTKH), strict=True)
    return KVCache(tuple(LayerCache(*map(lay_out, layer)) for layer in layers), jnp.int32(num_tokens))
