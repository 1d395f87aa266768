"""Head and cross-entropy in one, which keeps one array of [tokens, rows] for the backward pass."""

import math
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from llm_jax.model.layers import head_scores


class _Softmax(NamedTuple):
    """Cross-entropy and what its gradient needs: a row's probability is exponential / total."""

    nats: jax.Array  # [...]
    exponentials: jax.Array  # [..., R], of the scores less the largest
    total: jax.Array  # [...]


def cross_entropy(row_logits: jax.Array, targets: jax.Array, shared_ids: int = 0) -> jax.Array:
    """Return nats of each target [...] under scores [..., R]; the last `shared_ids` ids have the last row's
    score each.
    """
    return _softmax(row_logits, targets, shared_ids).nats


def _softmax(row_logits: jax.Array, targets: jax.Array, shared_ids: int) -> _Softmax:
    last, ids = row_logits.shape[-1] - 1, targets[..., None]
    if shared_ids:
        # The row stands for all of them in the sum of exponentials, and its probability is split evenly.
        row_logits = row_logits.at[..., last].add(math.log(shared_ids))
        ids = jnp.minimum(ids, last)
    largest = jnp.max(row_logits, axis=-1, keepdims=True)
    exponentials = jnp.exp(row_logits - largest)
    total = jnp.sum(exponentials, axis=-1)
    nats = jnp.log(total) - jnp.squeeze(jnp.take_along_axis(row_logits, ids, axis=-1) - largest, axis=-1)
    if shared_ids:
        nats += jnp.where(targets >= last, math.log(shared_ids), 0).astype(nats.dtype)
    return _Softmax(nats, exponentials, total)


def _head_nats(
    hidden_ND: jax.Array,
    kernel_DR: jax.Array,
    bias_R: jax.Array | None,
    targets_N: jax.Array,
    shared_ids: int,
) -> jax.Array:
    """Nats of each target, [N], from hidden states through the head, with a gradient of its own.

    Softmax's gradient (probability less one at the target) goes through both products as exponentials less
    their total at the target, the only [N, R] array that is kept, with each token's factor on the hidden
    state's side.
    """
    return _head_softmax(hidden_ND, kernel_DR, bias_R, targets_N, shared_ids).nats


@jax.named_scope("head")
def _head_softmax(
    hidden_ND: jax.Array,
    kernel_DR: jax.Array,
    bias_R: jax.Array | None,
    targets_N: jax.Array,
    shared_ids: int,
) -> _Softmax:
    return _softmax(head_scores(hidden_ND, kernel_DR, bias_R), targets_N, shared_ids)


def _head_nats_forward(
    hidden_ND: jax.Array,
    kernel_DR: jax.Array,
    bias_R: jax.Array | None,
    targets_N: jax.Array,
    shared_ids: int,
) -> tuple[jax.Array, tuple]:
    nats_N, exponentials_NR, total_N = _head_softmax(hidden_ND, kernel_DR, bias_R, targets_N, shared_ids)
    return nats_N, (hidden_ND, kernel_DR, bias_R, targets_N, exponentials_NR, total_N)


@jax.named_scope("head")
def _head_nats_backward(shared_ids: int, kept: tuple, cotangent_N: jax.Array) -> tuple:
    hidden_ND, kernel_DR, bias_R, targets_N, exponentials_NR, total_N = kept
    row_N = jnp.minimum(targets_N, kernel_DR.shape[1] - 1) if shared_ids else targets_N
    kind, factor_N = exponentials_NR.dtype, cotangent_N / total_N
    product = partial(jnp.einsum, preferred_element_type=kind)
    # Probabilities less one at the target, times each token's total: written into the array that was kept.
    away_NR = exponentials_NR.at[jnp.arange(row_N.size), row_N].add(-total_N)
    narrow_NR = away_NR.astype(kernel_DR.dtype)

    scaled_ND = (hidden_ND * factor_N[:, None]).astype(hidden_ND.dtype)
    kernel_cotangent_DR = product("ND,NR->DR", scaled_ND, narrow_NR)
    hidden_cotangent_ND = product("NR,DR->ND", narrow_NR, kernel_DR) * factor_N[:, None]
    bias_cotangent_R = None
    if bias_R is not None:
        bias_cotangent_R = product("N,NR->R", factor_N, away_NR, precision="highest").astype(bias_R.dtype)
    return (
        hidden_cotangent_ND.astype(hidden_ND.dtype),
        kernel_cotangent_DR.astype(kernel_DR.dtype),
        bias_cotangent_R,
        None,
    )


head_nats = jax.custom_vjp(_head_nats, nondiff_argnums=(4,))
