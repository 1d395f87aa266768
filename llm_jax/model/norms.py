"""Norms: each token's vector brought to one size. All compute in float32 at least."""

import jax
import jax.numpy as jnp
from flax import linen as nn

from llm_jax.config.model import ModelConfig


def accumulation_dtype(dtype: jax.typing.DTypeLike) -> jnp.dtype:
    """Return the type of norms, softmax, logits and loss: `dtype`, but float32 at least."""
    return jnp.promote_types(dtype, jnp.float32)


def norm(config: ModelConfig, name: str) -> nn.Module:
    """Return the model's norm over the last axis: layer norm, with the variance as torch computes it, or one
    by the root mean square (Zhang and Sennrich 2019).
    """
    if config.norm == "layer":
        return nn.LayerNorm(
            epsilon=config.norm_eps,
            dtype=accumulation_dtype(config.dtype),
            param_dtype=config.param_dtype,
            use_fast_variance=False,
            name=name,
        )
    return RMSNorm(config, name=name)


class RMSNorm(nn.Module):
    """x over its root mean square, times a learnt scale or, for rms_plus_one, 1 more than that."""

    config: ModelConfig

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        c = self.config
        plus_one = c.norm == "rms_plus_one"
        init = nn.initializers.zeros if plus_one else nn.initializers.ones
        scale = self.param("scale", init, x.shape[-1:], c.param_dtype).astype(accumulation_dtype(c.dtype))
        widened_x = x.astype(accumulation_dtype(c.dtype))
        mean_square = jnp.mean(jnp.square(widened_x), axis=-1, keepdims=True)
        factor = (1 + scale if plus_one else scale).reshape((1,) * (x.ndim - 1) + (-1,))
        return widened_x * jax.lax.rsqrt(mean_square + c.norm_eps) * factor
