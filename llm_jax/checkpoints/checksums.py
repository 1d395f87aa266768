"""Checksums of arrays that do not depend on how they are laid out: integer sums over position-mixed bits.

Two uint32 sums a leaf. The first multiplies each word by an odd number of its position, so any single changed
bit changes it; the second mixes differently, against changes that cancel. They guard against damage, not
against malice.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def leaf_names(tree: Any) -> list[str]:
    """Return a name like 'mu/blocks/query/kernel' for each leaf, in the order of `jax.tree.leaves`."""
    paths = jax.tree_util.tree_flatten_with_path(tree)[0]
    return [jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in paths]


def describe(tree: Any) -> dict[str, list]:
    """Return leaf name -> [dtype, shape], for arrays or shape structs."""
    leaves = jax.tree.leaves(tree)
    return {
        name: [str(jnp.dtype(leaf.dtype)), list(leaf.shape)]
        for name, leaf in zip(leaf_names(tree), leaves, strict=True)
    }


def checksums(tree: Any) -> dict[str, list[int]]:
    """Return leaf name -> two integers below 2**32, computed on the leaves' devices."""
    sums = jax.device_get(_checksums(jax.tree.leaves(tree)))
    return {name: [int(a), int(b)] for name, (a, b) in zip(leaf_names(tree), sums, strict=True)}


@jax.jit
def _checksums(leaves: list[jax.Array]) -> list[tuple[jax.Array, jax.Array]]:
    return [_checksum(leaf) for leaf in leaves]


def _checksum(leaf: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Both sums in one reduction over the leaf's own axes: XLA makes copies of the leaf for two of them, and
    gathers the parts of one that lies on many devices to flatten it.
    """
    bits = _words(leaf)
    position, stride = jnp.zeros(bits.shape, jnp.uint32), 1
    for axis in reversed(range(bits.ndim)):
        along = jax.lax.broadcasted_iota(jnp.uint32, bits.shape, axis)
        position += along * np.uint32(stride % 2**32)
        stride *= bits.shape[axis]
    mixed = (bits ^ (position * np.uint32(0x9E3779B9))) * np.uint32(0x85EBCA6B)
    mixed = (mixed ^ (mixed >> 15)) * np.uint32(0xC2B2AE35)
    summands = bits * (2 * position + 1), mixed ^ (mixed >> 13)
    zero = np.uint32(0)
    return jax.lax.reduce(
        summands, (zero, zero), lambda a, b: (a[0] + b[0], a[1] + b[1]), tuple(range(bits.ndim))
    )


def _words(leaf: jax.Array) -> jax.Array:
    if leaf.dtype == bool:
        return leaf.astype(jnp.uint32)
    size = jnp.dtype(leaf.dtype).itemsize
    unsigned = {1: jnp.uint8, 2: jnp.uint16, 4: jnp.uint32, 8: jnp.uint32}[size]
    return jax.lax.bitcast_convert_type(leaf, unsigned).astype(jnp.uint32)
