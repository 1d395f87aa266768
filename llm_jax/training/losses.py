"""Losses as (sum, weight), so that masks, accumulation and data parallelism add both and divide once.

Legend: B batch, T tokens, N tokens of a flattened batch, D d_model, R rows of the head. Unit: nats.
"""

import math
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from llm_jax.base.batch import Batch
from llm_jax.base.tree import Tree
from llm_jax.config.model import ModelConfig
from llm_jax.model.activations import Seen
from llm_jax.model.decoder import head_weights, hidden_states, row_logits
from llm_jax.model.layers import head_scores
from llm_jax.model.moe import Use, expert_use, imbalance

_TOKENS_AT_ONCE = 1024  # whose scores over all rows of the head are in memory while texts are scored


class _Softmax(NamedTuple):
    """Cross-entropy and what its gradient needs: a row's probability is exponential / total."""

    nats: jax.Array  # [...]
    exponentials: jax.Array  # [..., R], of the scores less the largest
    total: jax.Array  # [...]


def cross_entropy(row_logits: jax.Array, targets: jax.Array, shared_ids: int = 0) -> jax.Array:
    """Nats of each target [...] under scores [..., R]; the last `shared_ids` ids have the last row's score
    each.
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
def _head_nats_backward(shared_ids: int, kept: tuple, slope_N: jax.Array) -> tuple:
    hidden_ND, kernel_DR, bias_R, targets_N, exponentials_NR, total_N = kept
    row_N = jnp.minimum(targets_N, kernel_DR.shape[1] - 1) if shared_ids else targets_N
    kind, factor_N = exponentials_NR.dtype, slope_N / total_N
    product = partial(jnp.einsum, preferred_element_type=kind)
    # Probabilities less one at the target, times each token's total: written into the array that was kept.
    away_NR = exponentials_NR.at[jnp.arange(row_N.size), row_N].add(-total_N)
    narrow_NR = away_NR.astype(kernel_DR.dtype)

    scaled_ND = (hidden_ND * factor_N[:, None]).astype(hidden_ND.dtype)
    kernel_slope_DR = product("ND,NR->DR", scaled_ND, narrow_NR)
    hidden_slope_ND = product("NR,DR->ND", narrow_NR, kernel_DR) * factor_N[:, None]
    bias_slope_R = None
    if bias_R is not None:
        bias_slope_R = product("N,NR->R", factor_N, away_NR, precision="highest").astype(bias_R.dtype)
    return (
        hidden_slope_ND.astype(hidden_ND.dtype),
        kernel_slope_DR.astype(kernel_DR.dtype),
        bias_slope_R,
        None,
    )


head_nats = jax.custom_vjp(_head_nats, nondiff_argnums=(4,))
head_nats.defvjp(_head_nats_forward, _head_nats_backward)


@jax.named_scope("loss")
def weighted_sum(nats_BT: jax.Array, weights_BT: jax.Array) -> tuple[jax.Array, jax.Array]:
    """(sum of weighted nats, sum of weights); all weights zero give (0, 0)."""
    return jnp.sum(jnp.where(weights_BT > 0, nats_BT * weights_BT, 0)), jnp.sum(weights_BT)


def next_token_nats(
    params: Tree,
    config: ModelConfig,
    batch: Batch,
    dropout_key: jax.Array | None,
    first_row: jax.typing.ArrayLike = 0,
) -> jax.Array:
    """Cross-entropy of each next token, [B, T], without weights; dropout with a key, in a part of a batch
    that of its rows from `first_row` on.
    """
    return _nats_and_seen(params, config, batch, dropout_key, first_row)[0]


def _nats_and_seen(
    params: Tree,
    config: ModelConfig,
    batch: Batch,
    dropout_key: jax.Array | None,
    first_row: jax.typing.ArrayLike,
) -> tuple[jax.Array, Seen]:
    hidden_BTD, _, seen = hidden_states(
        params, config, batch.tokens, dropout_key=dropout_key, first_row=first_row
    )
    if config.logit_cap:  # whose slope head_nats does not know
        rows_BTR = row_logits(params, config, hidden_BTD)
        return cross_entropy(rows_BTR, batch.targets, config.shared_ids), seen
    kernel_DR, bias_R = head_weights(params, config)
    hidden_ND = hidden_BTD.reshape(-1, config.d_model).astype(config.dtype)
    nats_N = head_nats(hidden_ND, kernel_DR, bias_R, batch.targets.reshape(-1), config.shared_ids)
    return nats_N.reshape(batch.targets.shape), seen


def next_token_loss(
    params: Tree,
    config: ModelConfig,
    batch: Batch,
    dropout_key: jax.Array | None,
    first_row: jax.typing.ArrayLike = 0,
    use: Use | None = None,
) -> tuple[jax.Array, jax.Array]:
    """(sum, weight) of the cross-entropy of each next token; dropout with a key. A mixture of experts adds
    its imbalance to the gradient, not to the sum, which stays comparable. Gradients of the parts of a batch
    add up to that of the whole, if each is given its place and what the whole makes of its experts.

    Args:
        params: of the model.
        config: its shape.
        batch: a whole one, or some rows of one.
        dropout_key: that of the whole batch.
        first_row: the first row's number in the whole batch.
        use: of the whole batch, where these are not all of it and the router is pulled.
    """
    nats_BT, seen = _nats_and_seen(params, config, batch, dropout_key, first_row)
    total, weight = weighted_sum(nats_BT, batch.weights)
    if pulls_router(config):
        probabilities, chosen, _ = seen.blocks.routing
        use = use or expert_use(chosen, config.num_experts, batch.weights, weight)
        pull = config.router_balance * use.weight * imbalance(probabilities, batch.weights, use)
        total += (pull - jax.lax.stop_gradient(pull)).astype(total.dtype)
    return total, weight


def pulls_router(config: ModelConfig) -> bool:
    """Whether the loss has a gradient towards an even use of experts, which a part of a batch cannot know."""
    return bool(config.num_experts and config.router_balance)


def parts_use(params: Tree, config: ModelConfig, parts: Batch, key: jax.Array, first_rows: jax.Array) -> Use:
    """What a batch that is cut along B, [parts, B / parts, T], makes of its experts: a forward pass."""
    weight = jnp.sum(parts.weights)

    def part_shares(part: tuple[Batch, jax.Array]) -> jax.Array:
        batch, first_row = part
        _, _, seen = hidden_states(params, config, batch.tokens, dropout_key=key, first_row=first_row)
        return expert_use(seen.blocks.routing.chosen, config.num_experts, batch.weights, weight).shares

    return Use(weight, jnp.sum(jax.lax.map(part_shares, (parts, first_rows)), axis=0))


@partial(jax.jit, static_argnums=1)
def token_nats(params: Tree, config: ModelConfig, batch: Batch) -> jax.Array:
    """Nats of each target, [B, T], without dropout and without weights: what evaluation adds up."""
    return next_token_nats(params, config, batch, None)


class TargetScores(NamedTuple):
    """What a model gives each target."""

    nats: jax.Array  # [B, T]
    greedy: jax.Array  # [B, T] bool, whether greedy decoding would have chosen it


@partial(jax.jit, static_argnums=1)
def score_targets(params: Tree, config: ModelConfig, batch: Batch) -> TargetScores:
    """The nats that `token_nats` gives, and whether each target is the likeliest token.

    Scores of the head's rows are made for some tokens at a time, so that a window of any length fits.
    """
    hidden_BTD, _, _ = hidden_states(params, config, batch.tokens)

    def score(hidden_D: jax.Array, target: jax.Array) -> tuple[jax.Array, jax.Array]:
        rows_R = row_logits(params, config, hidden_D)
        # Ids that share the last row are equally likely; the first of them has the row's own number.
        return cross_entropy(rows_R, target, config.shared_ids), jnp.argmax(rows_R) == target

    flat = hidden_BTD.reshape(-1, config.d_model), batch.targets.reshape(-1)
    scores = jax.lax.map(lambda part: score(*part), flat, batch_size=_TOKENS_AT_ONCE)
    return TargetScores(*(score_N.reshape(batch.targets.shape) for score_N in scores))
