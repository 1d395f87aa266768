"""Dropout, with bits that are arithmetic on an index and a key."""

import math

import jax
import jax.numpy as jnp


@jax.named_scope("dropout")
def dropout(key: jax.Array | None, rate: float, x: jax.Array) -> jax.Array:
    """Zeroes each entry with probability `rate` and scales the rest by 1 / (1 - rate); the identity without a
    key.
    """
    if key is None or rate == 0:
        return x
    least = jnp.uint32(int(rate * 2**32))
    return jnp.where(hashed_bits(key, x.shape) >= least, x / (1 - rate), 0).astype(x.dtype)


def hashed_bits(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """A uniform uint32 for each place of an array: its index and the key, hashed.

    Unlike a generator's stream it is pure arithmetic on an index, so it is fused into what uses it and does
    not depend on how the array is cut up. Each round is PCG's output permutation (Jarzynski and Olano 2020).
    """
    index = sum(
        (jax.lax.broadcasted_iota(jnp.uint32, shape, axis) * jnp.uint32(math.prod(shape[axis + 1 :]) % 2**32))
        for axis in range(len(shape))
    )
    first, second = jax.random.key_data(key)
    return _pcg(_pcg(index + first) + second)


def _pcg(word: jax.Array) -> jax.Array:
    state = word * jnp.uint32(747796405) + jnp.uint32(2891336453)
    word = ((state >> ((state >> 28) + 4)) ^ state) * jnp.uint32(277803737)
    return (word >> 22) ^ word
