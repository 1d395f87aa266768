"""Dropout, with bits that are arithmetic on an index and a key."""

import math

import jax
import jax.numpy as jnp

# The kind of all keys, whatever JAX_DEFAULT_PRNG_IMPL says: a run's numbers follow from its seed alone.
KEY_KIND = "threefry2x32"


@jax.named_scope("dropout")
def dropout(
    key: jax.Array | None, rate: float, x: jax.Array, first_row: jax.typing.ArrayLike = 0
) -> jax.Array:
    """Zero each entry with probability `rate` and scales the rest by 1 / (1 - rate); the identity without a
    key. Rows from `first_row` on of a larger array lose what they would lose in it.
    """
    if key is None or rate == 0:
        return x
    least = jnp.uint32(int(rate * 2**32))
    return jnp.where(hashed_bits(key, x.shape, first_row) >= least, x / (1 - rate), 0).astype(x.dtype)


def hashed_bits(key: jax.Array, shape: tuple[int, ...], first_row: jax.typing.ArrayLike = 0) -> jax.Array:
    """Return a uniform uint32 for each place of an array, or of its rows from `first_row` on: its index and
    the key, hashed.

    Unlike a generator's stream it is pure arithmetic on an index, so it is fused into what uses it and does
    not depend on how the array is cut up. Each round is PCG's output permutation (Jarzynski and Olano 2020).
    """
    places = [jax.lax.broadcasted_iota(jnp.uint32, shape, axis) for axis in range(len(shape))]
    places[0] += jnp.asarray(first_row).astype(jnp.uint32)
    index = sum(place * jnp.uint32(math.prod(shape[axis + 1 :]) % 2**32) for axis, place in enumerate(places))
    first, second = jax.random.key_data(key)
    return _pcg(_pcg(index + first) + second)


def _pcg(word: jax.Array) -> jax.Array:
    state = word * jnp.uint32(747796405) + jnp.uint32(2891336453)
    word = ((state >> ((state >> 28) + 4)) ^ state) * jnp.uint32(277803737)
    return (word >> 22) ^ word
