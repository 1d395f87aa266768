"""Work per step and what the machine could do: the two sides of MFU (Chowdhery et al. 2022).

FLOPs are those of the matrix products of forward and backward; the ceiling is a float32 or bfloat16 matrix
product timed here, so the share has a meaning on every device, a laptop's CPU included.
"""

import time
from math import prod

import jax
import jax.numpy as jnp

from llm_jax.config import ModelConfig
from llm_jax.model.decoder import abstract_params
from llm_jax.tree import flatten


def flops_per_token(config: ModelConfig) -> int:
    """Multiply-adds times two of forward and backward, for one token at the full context length."""
    kernels = sum(
        prod(leaf.shape) for path, leaf in flatten(abstract_params(config)) if path.endswith("kernel")
    )
    if config.tied_head:
        kernels += config.num_rows * config.d_model
    attention = 2 * config.num_layers * config.context_length * config.d_model  # q.k and weights times v
    return 6 * (kernels + attention)


def measure_peak_flops(dtype: str, size: int = 1024, repeats: int = 5) -> float:
    """FLOP/s of the fastest of a few [size, size] matrix products on the default device (about 0.1 s on two
    CPU cores).
    """
    x = jnp.ones((size, size), dtype)
    product = jax.jit(jnp.matmul)
    product(x, x).block_until_ready()
    best = float("inf")
    for _ in range(repeats):
        start = time.perf_counter()
        product(x, x).block_until_ready()
        best = min(best, time.perf_counter() - start)
    return 2 * size**3 / best
