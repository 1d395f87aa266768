"""Checksums of leaves: what they are, what they notice, and that they need no room."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from llm_jax.checkpoints.checksums import _checksums, checksums


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int32", "int8", "bool", "uint16"])
def test_any_single_flipped_bit_changes_the_checksum(dtype: str) -> None:
    values = np.random.default_rng(0).integers(0, 2, 64) if dtype == "bool" else np.arange(64)
    clean = np.asarray(jnp.asarray(values, dtype))
    reference = checksums({"x": jnp.asarray(clean)})
    for position in range(0, 64, 7):
        for bit in range(1 if dtype == "bool" else 8 * clean.itemsize):
            raw = bytearray(clean.tobytes())
            raw[position * clean.itemsize + bit // 8] ^= 1 << bit % 8
            assert checksums({"x": jnp.asarray(np.frombuffer(bytes(raw), clean.dtype))}) != reference


def test_a_leaf_has_the_sums_that_it_always_had() -> None:
    """As the first version reckoned them, or checkpoints from before would count as damaged."""
    words = np.random.default_rng(0).integers(0, 2**32, (3, 5, 7), np.uint32)
    flat, position = words.ravel(), np.arange(words.size, dtype=np.uint32)
    mixed = (flat ^ (position * np.uint32(0x9E3779B9))) * np.uint32(0x85EBCA6B)
    mixed = (mixed ^ (mixed >> 15)) * np.uint32(0xC2B2AE35)
    first = np.sum(flat * (2 * position + 1), dtype=np.uint32)
    second = np.sum(mixed ^ (mixed >> 13), dtype=np.uint32)
    wanted = [int(first), int(second)]
    assert checksums({"x": jnp.asarray(words), "f": jnp.asarray(words.view(np.float32))}) == {
        "f": wanted,
        "x": wanted,
    }


@pytest.mark.parametrize("spec", [(), ("a",), (None, "a", "b")])
def test_checksums_hold_no_copy_of_a_leaf_wherever_it_lies(spec: tuple[str | None, ...]) -> None:
    mesh = jax.make_mesh((4, 2), ("a", "b"), axis_types=(jax.sharding.AxisType.Auto,) * 2)
    leaf = jax.ShapeDtypeStruct(
        (8, 256, 512), jnp.bfloat16, sharding=NamedSharding(mesh, PartitionSpec(*spec))
    )
    memory = _checksums.lower([leaf]).compile().memory_analysis()
    assert memory.temp_size_in_bytes < 0.01 * leaf.size * leaf.dtype.itemsize
