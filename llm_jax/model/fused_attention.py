"""Attention by the kernels of the accelerators' libraries, which keep scores and weights out of memory.

cuDNN's flash attention on a GPU and JAX's splash attention on a TPU (Dao et al. 2022) compute what
`attention` spells out, which stays the reference. Legend: B batch, T tokens, N query heads, K key/value
heads, H head_dim.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from llm_jax.base.devices import platform
from llm_jax.config.model import ModelConfig

Kernel = Callable[..., jax.Array]  # (q_BTNH, k_BTKH, v_BTKH, scale=, window=) -> [B, T, N, H]

_LANES = 128  # splash attention's blocks are multiples of it
_BLOCKS = (512, 256, _LANES)


def fused_kernel(config: ModelConfig) -> Kernel | None:
    """Return the kernel of the platform that a program is made for; None where the configuration asks for
    none, or on a CPU.
    """
    kernels = {"gpu": _cudnn, "tpu": _splash}
    return kernels.get(platform()) if config.attention == "fused" else None


@jax.named_scope("attention")
def fused_attention(
    kernel: Kernel,
    config: ModelConfig,
    q_BTNH: jax.Array,
    k_BTKH: jax.Array,
    v_BTKH: jax.Array,
    windowed: jax.Array,
    start_B: jax.Array | None,
) -> jax.Array:
    """Return the values of the tokens that each token sees under its weights, [B, T, N, H]: what
    `attention_weights` and `mix` give, except at padding, which nobody reads.

    Args:
        kernel: as `fused_kernel` gives it.
        config: whose scale and windows hold.
        q_BTNH: queries.
        k_BTKH: keys of the same tokens.
        v_BTKH: their values.
        windowed: [] bool, whether this layer has the window, where some have and others not.
        start_B: first real token of each left-padded row; None where no row is padded.
    """
    if start_B is not None:  # Padding behind a text is what no token of it sees.
        q_BTNH, k_BTKH, v_BTKH = (_roll(x, start_B) for x in (q_BTNH, k_BTKH, v_BTKH))
    near, far = (
        partial(kernel, scale=config.attention_scale or 1 / math.sqrt(config.head_dim), window=window)
        for window in (config.sliding_window, 0)
    )
    if config.global_every:
        mixed_BTNH = jax.lax.cond(windowed, near, far, q_BTNH, k_BTKH, v_BTKH)
    else:
        mixed_BTNH = near(q_BTNH, k_BTKH, v_BTKH)
    return mixed_BTNH if start_B is None else _roll(mixed_BTNH, -start_B)


def _roll(x_BTNH: jax.Array, by_B: jax.Array) -> jax.Array:
    """Each row, from its token number `by` on, with those before it at its end."""
    token_BT = (jnp.arange(x_BTNH.shape[1])[None, :] + by_B[:, None]) % x_BTNH.shape[1]
    return jnp.take_along_axis(x_BTNH, token_BT[:, :, None, None], axis=1)


def _cudnn(
    q_BTNH: jax.Array, k_BTKH: jax.Array, v_BTKH: jax.Array, *, scale: float, window: int
) -> jax.Array:
    before = (window - 1, 0) if window else None  # tokens on either side, beside the token itself
    return jax.nn.dot_product_attention(
        q_BTNH,
        k_BTKH,
        v_BTKH,
        scale=scale,
        is_causal=True,
        local_window_size=before,
        implementation="cudnn",
    )


def _splash(
    q_BTNH: jax.Array, k_BTKH: jax.Array, v_BTKH: jax.Array, *, scale: float, window: int
) -> jax.Array:
    # Imported where it is used: elsewhere nobody waits for Pallas.
    from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel as splash
    from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask as masks

    num_tokens, num_heads = q_BTNH.shape[1:3]
    padding = -num_tokens % _LANES  # behind the text, where no token of it looks
    length = num_tokens + padding
    block = next(size for size in _BLOCKS if not length % size)
    mask = (
        masks.LocalMask((length, length), window_size=(window - 1, 0), offset=0)
        if window
        else masks.CausalMask((length, length))
    )
    sizes = splash.BlockSizes(
        block_q=block,
        block_kv=block,
        block_q_dkv=block,
        block_kv_dkv=block,
        block_q_dq=block,
        block_kv_dq=block,
    )
    run: Any = jax.vmap(
        splash.make_splash_mha_single_device(masks.MultiHeadMask([mask] * num_heads), block_sizes=sizes)
    )

    def heads_first(x_BTNH: jax.Array) -> jax.Array:
        return jnp.swapaxes(jnp.pad(x_BTNH, ((0, 0), (0, padding), (0, 0), (0, 0))), 1, 2)

    scaled_BTNH = (q_BTNH * scale).astype(q_BTNH.dtype)
    mixed_BNTH = run(*(heads_first(x) for x in (scaled_BTNH, k_BTKH, v_BTKH)))
    return jnp.swapaxes(mixed_BNTH, 1, 2)[:, :num_tokens]
