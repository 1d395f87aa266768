"""Work per step and what the machine could do: the two sides of MFU (Chowdhery et al. 2022).

FLOPs are those of the matrix products of forward and backward; the ceiling is a float32 or bfloat16 matrix
product timed here, so the share has a meaning on every device, a laptop's CPU included, or a datasheet's.
"""

import re
import time
from collections.abc import Callable
from math import prod

import jax
import jax.numpy as jnp

from llm_jax.base.tree import flatten
from llm_jax.config.model import ModelConfig
from llm_jax.model.decoder import abstract_params


def flops_per_token(config: ModelConfig) -> int:
    """Return multiply-adds times two of forward and backward, for one token at the full context length."""
    shapes = {path: leaf.shape for path, leaf in flatten(abstract_params(config)) if path.endswith("kernel")}
    taken = lambda path: path.startswith("blocks/mlp_") and config.num_experts  # noqa: E731
    kernels = sum(
        prod(shape) * config.experts_per_token // config.num_experts if taken(path) else prod(shape)
        for path, shape in shapes.items()
    )
    if config.tied_head:
        kernels += config.num_rows * config.d_model
    width = config.num_heads * config.head_dim
    attention = 2 * config.num_layers * config.context_length * width  # q.k and weights times v
    return 6 * (kernels + attention)


def measure_peak_flops(dtype: str, size: int = 1024, repeats: int = 5) -> float:
    """Return FLOP/s of the fastest of a few [size, size] matrix products on the default device (about 0.1 s
    on two CPU cores).
    """
    x = jnp.ones((size, size), dtype)
    product = jax.jit(jnp.matmul)
    return 2 * size**3 / _shortest(lambda: product(x, x), repeats)


def measure_bandwidth(repeats: int = 7) -> float:
    """Return bytes per second read from an array of 256 MB on the default device, the best of a few sums."""
    array = jnp.ones(2**26)
    add = jax.jit(jnp.sum)
    return array.nbytes / _shortest(lambda: add(array), repeats)


def _shortest(call: Callable[[], jax.Array], repeats: int) -> float:
    """Seconds of the fastest of a few calls, after one that compiles."""
    call().block_until_ready()
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        call().block_until_ready()
        times.append(time.perf_counter() - began)
    return min(times)


# What a device calls itself (a pattern), and its dense bfloat16 FLOP/s.
_DATASHEETS = {
    r"TPU v4": 275e12,
    r"TPU v5 lite|TPU v5e": 197e12,
    r"TPU v5p?": 459e12,
    r"TPU v6 lite|TPU v6e": 918e12,
    r"NVIDIA A100.*": 312e12,
    r"NVIDIA H100 PCIe": 756e12,
    r"NVIDIA H100 80GB HBM3": 989e12,
    r"NVIDIA H200": 989e12,
}


def datasheet_flops(device_kind: str) -> float | None:
    """Return dense bfloat16 FLOP/s of one accelerator as its maker states them, or None for one not in the
    table.

    Sources: docs.cloud.google.com/tpu/docs/v4, v5e, v5p and v6e ("peak compute per chip (bf16)"); NVIDIA's
    datasheets of A100, H100 (SXM and PCIe) and H200, halved where they count with sparsity.
    """
    return next((flops for name, flops in _DATASHEETS.items() if re.fullmatch(name, device_kind)), None)


def share_of_peak(flops: float, seconds: float, peak: float | None) -> float | None:
    """Return the share of a ceiling in FLOP/s that so much work in this time reaches; None without a
    ceiling.
    """
    return None if peak is None else flops / seconds / peak
