"""The leaves: Flax modules that declare one layer's parameters, and the pure pieces of attention.

Nothing here knows how many layers there are, what a loss is, or where arrays live. Legend: B batch, T query
tokens, S key/value slots, D d_model, F MLP width, N heads, H head_dim, V vocabulary.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from llm_jax.config import ModelConfig
from llm_jax.model.cache import LayerCache
from llm_jax.model.positions import Rotation, rotate
from llm_jax.model.seen import SeenInBlock
from llm_jax.tree import Tree

Initializer = jax.nn.initializers.Initializer


def wide(dtype: jax.typing.DTypeLike) -> jnp.dtype:
    """The type of norms, softmax, logits and loss: `dtype`, but float32 at least."""
    return jnp.promote_types(dtype, jnp.float32)


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


@jax.named_scope("attention")
def attention_weights(
    q_BTNH: jax.Array, k_BSNH: jax.Array, mask_BTS: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Softmax over slots of q.k / sqrt(H), exactly 0 where the mask is False; then the scores it was made of,
    after and before the mask. Each [B, N, T, S] in at least float32.
    """
    kind = wide(q_BTNH.dtype)
    scores_BNTS = jnp.einsum("BTNH,BSNH->BNTS", q_BTNH, k_BSNH, preferred_element_type=kind)
    scores_BNTS = scores_BNTS / math.sqrt(q_BTNH.shape[-1])
    # The lowest finite number rather than -inf: a padded query may see no slot at all, and must not become
    # NaN.
    masked_BNTS = jnp.where(mask_BTS[:, None], scores_BNTS, jnp.finfo(kind).min)
    weights_BNTS = jax.nn.softmax(masked_BNTS, axis=-1)
    return weights_BNTS, masked_BNTS, scores_BNTS


def apply(module: nn.Module, params: Tree, *arguments: Any) -> Any:
    """A leaf's output under these parameters."""
    return module.apply({"params": params}, *arguments)


def _symmetric_uniform(limit: float) -> Initializer:
    def init(key: jax.Array, shape: Any, dtype: Any = jnp.float32, out_sharding: Any = None) -> jax.Array:
        del out_sharding
        return jax.random.uniform(key, shape, dtype, -limit, limit)

    return init


def kernel_init(config: ModelConfig, fan_in: int, *, residual: bool = False) -> Initializer:
    """How a projection starts: torch's uniform(1/sqrt(fan_in)), or GPT-2's normal (smaller into the residual
    stream).
    """
    if config.initializer == "torch":
        return _symmetric_uniform(1 / math.sqrt(fan_in))
    return jax.nn.initializers.normal(0.02 / math.sqrt(2 * config.num_layers) if residual else 0.02)


def bias_init(config: ModelConfig, fan_in: int) -> Initializer:
    """How a bias starts: torch's uniform(1/sqrt(fan_in)), or zero."""
    return (
        _symmetric_uniform(1 / math.sqrt(fan_in)) if config.initializer == "torch" else nn.initializers.zeros
    )


def embedding_init(config: ModelConfig) -> Initializer:
    """How an embedding starts: torch's normal(1), or GPT-2's normal(0.02)."""
    return jax.nn.initializers.normal(1.0 if config.initializer == "torch" else 0.02)


def layer_norm(config: ModelConfig, name: str) -> nn.LayerNorm:
    """Layer norm in at least float32, with the variance as torch computes it."""
    return nn.LayerNorm(
        epsilon=config.norm_eps,
        dtype=wide(config.dtype),
        param_dtype=config.param_dtype,
        use_fast_variance=False,
        name=name,
    )


_ACTIVATIONS = {
    "relu": jax.nn.relu,
    "gelu": jax.nn.gelu,
    "relu_squared": lambda x: jnp.square(jax.nn.relu(x)),
}


class Block(nn.Module):
    """One pre-norm decoder block: attention, then the MLP, each added to the residual stream."""

    config: ModelConfig

    @nn.compact
    def __call__(
        self,
        x_BTD: jax.Array,
        mask_BTS: jax.Array,
        turn: Rotation | None,
        cache: LayerCache | None,
        first: jax.Array,
        keys: jax.Array | None,
    ) -> tuple[jax.Array, LayerCache | None, SeenInBlock]:
        c = self.config
        weights_key, attention_key, mlp_key = (None, None, None) if keys is None else keys

        attention_input_BTD = layer_norm(c, "norm_1")(x_BTD).astype(c.dtype)
        q_BTNH, k_BSNH, v_BSNH = (
            self._heads(name, attention_input_BTD) for name in ("query", "key", "value")
        )
        if c.qk_norm:
            q_BTNH = self._norm_heads("query_norm", q_BTNH)
            k_BSNH = self._norm_heads("key_norm", k_BSNH)
        if turn is not None:
            q_BTNH, k_BSNH = (rotate(x, turn) for x in (q_BTNH, k_BSNH))
        if cache is not None:
            cache = cache.write(k_BSNH, v_BSNH, first)
            k_BSNH, v_BSNH = (jnp.swapaxes(slots, 1, 2) for slots in cache)
        weights_BNTS, masked_BNTS, scores_BNTS = attention_weights(q_BTNH, k_BSNH, mask_BTS)
        kept_BNTS = dropout(weights_key, c.dropout, weights_BNTS.astype(c.dtype))
        mixed_BTNH = jnp.einsum("BNTS,BSNH->BTNH", kept_BNTS, v_BSNH)
        attention_output_BTD = self._project("attention_output", c.d_model, mixed_BTNH, True)
        after_attention_BTD = x_BTD + dropout(attention_key, c.dropout, attention_output_BTD)

        mlp_input_BTD = layer_norm(c, "norm_2")(after_attention_BTD).astype(c.dtype)
        hidden_BTF = self._project("mlp_up", c.mlp_width, mlp_input_BTD)
        active_BTF = _ACTIVATIONS[c.activation](hidden_BTF)
        mlp_output_BTD = self._project("mlp_down", c.d_model, active_BTF, True)
        output_BTD = after_attention_BTD + dropout(mlp_key, c.dropout, mlp_output_BTD)
        seen = SeenInBlock(
            block_input=x_BTD,
            attention_input=attention_input_BTD,
            queries=q_BTNH,
            keys=k_BSNH,
            values=v_BSNH,
            scores=scores_BNTS,
            masked_scores=masked_BNTS,
            weights=weights_BNTS,
            mixed=mixed_BTNH,
            attention_output=attention_output_BTD,
            after_attention=after_attention_BTD,
            mlp_input=mlp_input_BTD,
            mlp_hidden=hidden_BTF,
            mlp_active=active_BTF,
            mlp_output=mlp_output_BTD,
            block_output=output_BTD,
        )
        return output_BTD, cache, seen

    def _heads(self, name: str, x_BTD: jax.Array) -> jax.Array:
        c = self.config
        return Projection(c, (c.num_heads, c.head_dim), use_bias=c.qkv_bias, name=name)(x_BTD)

    def _norm_heads(self, name: str, x_BTNH: jax.Array) -> jax.Array:
        c = self.config
        norm = nn.RMSNorm(epsilon=c.norm_eps, dtype=wide(c.dtype), param_dtype=c.param_dtype, name=name)
        return norm(x_BTNH).astype(c.dtype)

    def _project(self, name: str, features: int, x: jax.Array, residual: bool = False) -> jax.Array:
        return Projection(self.config, (features,), residual=residual, name=name)(x)


class Projection(nn.Module):
    """A linear layer on everything after [B, T] (a width, or heads and their width), [B, T, *features].

    It is one product of two matrices, as its gradient is then too: contracting over B and T apart would make
    XLA copy what it contracts.
    """

    config: ModelConfig
    features: tuple[int, ...]
    use_bias: bool = True
    residual: bool = False

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        c, (batch_size, num_tokens, *inputs) = self.config, x.shape
        fan_in = math.prod(inputs)
        init = kernel_init(c, fan_in, residual=self.residual)
        kernel = self.param("kernel", init, (*inputs, *self.features), c.param_dtype).astype(c.dtype)
        joined = x.reshape(batch_size * num_tokens, fan_in)
        y = joined @ kernel.reshape(fan_in, -1)
        if self.use_bias:
            bias = self.param("bias", bias_init(c, fan_in), self.features, c.param_dtype)
            # A product with ones: its gradient is then one, too, and not XLA's slow sum over the rows.
            ones, row = jnp.ones((len(y), 1), c.dtype), bias.astype(c.dtype).reshape(1, -1)
            y += jnp.matmul(ones, row, precision="highest")
        return y.reshape(batch_size, num_tokens, *self.features)


class Head(nn.Module):
    """The untied output head: its kernel [D, R] in the compute type and its bias [R], or None."""

    config: ModelConfig

    @nn.compact
    def __call__(self) -> tuple[jax.Array, jax.Array | None]:
        c = self.config
        shape = (c.d_model, c.num_rows)
        kernel_DR = self.param("kernel", kernel_init(c, c.d_model), shape, c.param_dtype)
        bias_R = None
        if c.head_bias:
            bias_R = self.param("bias", bias_init(c, c.d_model), shape[1:], c.param_dtype)
        return kernel_DR.astype(c.dtype), bias_R


def head_scores(hidden: jax.Array, kernel_DR: jax.Array, bias_R: jax.Array | None) -> jax.Array:
    """Scores of the head's rows, [..., R] in at least float32, from hidden states [..., D]."""
    logits = jnp.einsum("...D,DR->...R", hidden, kernel_DR, preferred_element_type=wide(hidden.dtype))
    if bias_R is None:
        return logits
    return logits + bias_R.astype(logits.dtype).reshape((1,) * (logits.ndim - 1) + (-1,))
