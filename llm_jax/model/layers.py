"""The leaves: Flax modules that declare one layer's parameters.

Nothing here knows how many layers there are, what a loss is, or where arrays live. Legend: B batch, T query
tokens, S key/value slots, D d_model, F MLP width, N query heads, K key/value heads, H head_dim, E experts,
R rows of the head.
"""

import math
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from llm_jax.base.tree import Tree
from llm_jax.config.model import ModelConfig
from llm_jax.model import lora
from llm_jax.model.activations import SeenInBlock
from llm_jax.model.attention import AttentionPattern, attention_weights, mix
from llm_jax.model.cache import LayerCache
from llm_jax.model.dropout import dropout
from llm_jax.model.fused_attention import fused_attention, fused_kernel
from llm_jax.model.moe import Routing, mix_experts, route
from llm_jax.model.norms import RMSNorm, accumulation_dtype, norm
from llm_jax.model.positions import rotate

Initializer = jax.nn.initializers.Initializer


def apply(module: nn.Module, params: Tree, *arguments: Any) -> Any:
    """Return a leaf's output under these parameters."""
    return module.apply({"params": params}, *arguments)


def _symmetric_uniform(limit: float) -> Initializer:
    def init(key: jax.Array, shape: Any, dtype: Any = jnp.float32, out_sharding: Any = None) -> jax.Array:
        del out_sharding
        return jax.random.uniform(key, shape, dtype, -limit, limit)

    return init


def kernel_init(
    config: ModelConfig, fan_in: int, *, residual: bool = False, head: bool = False
) -> Initializer:
    """Return how a projection starts: torch's uniform(1/sqrt(fan_in)), or GPT-2's normal (smaller into the
    residual stream). With a base width its variance falls with 1 / width from there on, the head's with 1 /
    width^2 (Yang et al. 2022, table 3).
    """
    ratio = config.width_ratio
    if config.initializer == "torch":  # whose variance falls with 1 / width anyway
        return _symmetric_uniform(1 / math.sqrt(fan_in * ratio if head else fan_in))
    deviation = 0.02 / math.sqrt(2 * config.num_layers) if residual else 0.02
    return jax.nn.initializers.normal(deviation / (ratio if head else math.sqrt(ratio)))


def bias_init(config: ModelConfig, fan_in: int) -> Initializer:
    """Return how a bias starts: torch's uniform(1/sqrt(fan_in)), at the base width where there is one, or
    zero.
    """
    if config.initializer == "torch":
        return _symmetric_uniform(1 / math.sqrt(fan_in / config.width_ratio))
    return nn.initializers.zeros


def embedding_init(config: ModelConfig) -> Initializer:
    """Return how an embedding starts: torch's normal(1), or GPT-2's normal(0.02)."""
    return jax.nn.initializers.normal(1.0 if config.initializer == "torch" else 0.02)


_ACTIVATIONS = {
    "relu": jax.nn.relu,
    "gelu": jax.nn.gelu,
    "gelu_exact": partial(jax.nn.gelu, approximate=False),
    "silu": jax.nn.silu,
    "relu_squared": lambda x: jnp.square(jax.nn.relu(x)),
}


class Block(nn.Module):
    """One decoder block: attention, then the MLP, each added to the residual stream."""

    config: ModelConfig

    @nn.compact
    def __call__(
        self,
        x_BTD: jax.Array,
        attention_pattern: AttentionPattern,
        cache: LayerCache | None,
        first: jax.Array,
        keys: jax.Array | None,
        first_row: jax.typing.ArrayLike = 0,
    ) -> tuple[jax.Array, LayerCache | None, SeenInBlock]:
        c = self.config
        weights_key, attention_key, mlp_key = (None, None, None) if keys is None else keys

        attention_input_BTD = self._norm_before("norm_1", x_BTD)
        q_BTNH = self._heads("query", c.num_heads, attention_input_BTD)
        k_BSKH = self._heads("key", c.kv_heads, attention_input_BTD)
        v_BSKH = self._heads("value", c.kv_heads, attention_input_BTD)
        if c.qk_norm != "none":
            q_BTNH = self._norm_heads("query_norm", q_BTNH)
            k_BSKH = self._norm_heads("key_norm", k_BSKH)
        if attention_pattern.turn is not None:
            q_BTNH, k_BSKH = (rotate(x, attention_pattern.turn) for x in (q_BTNH, k_BSKH))
        if cache is not None:
            cache = cache.write(k_BSKH, v_BSKH, first)
            k_BSKH, v_BSKH = (jnp.swapaxes(slots, 1, 2) for slots in cache)
        weights_BNTS, masked_BNTS, scores_BNTS = attention_weights(c, q_BTNH, k_BSKH, attention_pattern.mask)
        kernel = fused_kernel(c) if cache is None else None
        if kernel is None:
            kept_BNTS = dropout(weights_key, c.dropout, weights_BNTS.astype(c.dtype), first_row)
            mixed_BTNH = mix(kept_BNTS, v_BSKH)
        else:  # The weights are then for those who look, and otherwise never computed.
            mixed_BTNH = fused_attention(
                kernel, c, q_BTNH, k_BSKH, v_BSKH, attention_pattern.windowed, attention_pattern.start
            )
        projected_BTD = self._project("attention_output", c.d_model, mixed_BTNH, c.output_bias, residual=True)
        attention_output_BTD = self._norm_after("attention_output_norm", projected_BTD)
        after_attention_BTD = x_BTD + dropout(attention_key, c.dropout, attention_output_BTD, first_row)

        mlp_input_BTD = self._norm_before("norm_2", after_attention_BTD)
        mlp = self._experts if c.num_experts else self._mlp
        down_BTD, mlp_hidden, mlp_active, routing = mlp(mlp_input_BTD)
        mlp_output_BTD = self._norm_after("mlp_output_norm", down_BTD)
        output_BTD = after_attention_BTD + dropout(mlp_key, c.dropout, mlp_output_BTD, first_row)
        seen = SeenInBlock(
            block_input=x_BTD,
            attention_input=attention_input_BTD,
            queries=q_BTNH,
            keys=k_BSKH,
            values=v_BSKH,
            scores=scores_BNTS,
            masked_scores=masked_BNTS,
            weights=weights_BNTS,
            mixed=mixed_BTNH,
            attention_output=attention_output_BTD,
            after_attention=after_attention_BTD,
            mlp_input=mlp_input_BTD,
            mlp_hidden=mlp_hidden,
            mlp_active=mlp_active,
            routing=routing,
            mlp_output=mlp_output_BTD,
            block_output=output_BTD,
        )
        return output_BTD, cache, seen

    def _mlp(self, x_BTD: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array, None]:
        c = self.config
        active_name = "mlp_gate" if c.gated_mlp else "mlp_up"
        hidden_BTF = self._project(active_name, c.mlp_width, x_BTD, c.mlp_bias)
        with jax.named_scope("activation"):
            active_BTF = _ACTIVATIONS[c.activation](hidden_BTF)
        if c.gated_mlp:
            active_BTF *= self._project("mlp_up", c.mlp_width, x_BTD, c.mlp_bias)
        down_BTD = self._project("mlp_down", c.d_model, active_BTF, c.mlp_bias, residual=True)
        return down_BTD, hidden_BTF, active_BTF, None

    def _experts(self, x_BTD: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array, Routing]:
        c = self.config
        inwards, outwards = (
            (c.num_experts, *widths) for widths in ((c.d_model, c.mlp_width), (c.mlp_width, c.d_model))
        )
        routing = route(c, x_BTD, Kernel(c, (c.d_model, c.num_experts), name="router")())
        gate_EDF = Kernel(c, inwards, name="mlp_gate")() if c.gated_mlp else None
        up_EDF = Kernel(c, inwards, name="mlp_up")()
        down_EFD = Kernel(c, outwards, residual=True, name="mlp_down")()
        activation = _ACTIVATIONS[c.activation]
        return *mix_experts(x_BTD, routing, activation, gate_EDF, up_EDF, down_EFD), routing

    def _norm_before(self, name: str, x_BTD: jax.Array) -> jax.Array:
        c = self.config
        return norm(c, name)(x_BTD).astype(c.dtype) if c.norm_place != "after" else x_BTD.astype(c.dtype)

    def _norm_after(self, name: str, x_BTD: jax.Array) -> jax.Array:
        c = self.config
        return norm(c, name)(x_BTD).astype(c.dtype) if c.norm_place != "before" else x_BTD

    def _heads(self, name: str, count: int, x_BTD: jax.Array) -> jax.Array:
        c = self.config
        return Projection(c, (count, c.head_dim), use_bias=c.qkv_bias, name=name)(x_BTD)

    def _norm_heads(self, name: str, x_BTNH: jax.Array) -> jax.Array:
        c = self.config
        normed = x_BTNH if c.qk_norm == "head" else x_BTNH.reshape(*x_BTNH.shape[:2], -1)
        return RMSNorm(c, name=name)(normed).reshape(x_BTNH.shape).astype(c.dtype)

    def _project(
        self, name: str, features: int, x: jax.Array, use_bias: bool, *, residual: bool = False
    ) -> jax.Array:
        return Projection(self.config, (features,), use_bias=use_bias, residual=residual, name=name)(x)


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
        kernel_IO = kernel.reshape(fan_in, -1)
        y = joined @ kernel_IO
        if self.has_variable("params", lora.IN):
            leaves = {name: self.get_variable("params", name) for name in lora.LEAVES}
            y = lora.adapted(joined, kernel_IO, y, {name: x for name, x in leaves.items() if x is not None})
        if self.use_bias:
            bias = self.param("bias", bias_init(c, fan_in), self.features, c.param_dtype)
            # A product with ones: its gradient is then one, too, and not XLA's slow sum over the rows.
            ones, row = jnp.ones((len(y), 1), c.dtype), bias.astype(c.dtype).reshape(1, -1)
            y += jnp.matmul(ones, row, precision="highest")
        return y.reshape(batch_size, num_tokens, *self.features)


class Kernel(nn.Module):
    """A kernel alone, [..., in, out] in the compute type, for products that are not those of `Projection`."""

    config: ModelConfig
    shape: tuple[int, ...]
    residual: bool = False

    @nn.compact
    def __call__(self) -> jax.Array:
        init = kernel_init(self.config, self.shape[-2], residual=self.residual)
        return self.param("kernel", init, self.shape, self.config.param_dtype).astype(self.config.dtype)


class Head(nn.Module):
    """The untied output head: its kernel [D, R] in the compute type and its bias [R], or None."""

    config: ModelConfig

    @nn.compact
    def __call__(self) -> tuple[jax.Array, jax.Array | None]:
        c = self.config
        shape = (c.d_model, c.num_rows)
        kernel_DR = self.param("kernel", kernel_init(c, c.d_model, head=True), shape, c.param_dtype)
        bias_R = None
        if c.head_bias:
            bias_R = self.param("bias", bias_init(c, c.d_model), shape[1:], c.param_dtype)
        return kernel_DR.astype(c.dtype), bias_R


def head_scores(hidden: jax.Array, kernel_DR: jax.Array, bias_R: jax.Array | None) -> jax.Array:
    """Return scores of the head's rows, [..., R] in at least float32, from hidden states [..., D]."""
    logits = jnp.einsum(
        "...D,DR->...R", hidden, kernel_DR, preferred_element_type=accumulation_dtype(hidden.dtype)
    )
    if bias_R is None:
        return logits
    return logits + bias_R.astype(logits.dtype).reshape((1,) * (logits.ndim - 1) + (-1,))
