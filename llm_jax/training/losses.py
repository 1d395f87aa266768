"""Losses as (sum, weight), so that masks, accumulation and data parallelism add both and divide once.

Legend: B batch, T tokens, N tokens of a flattened batch, D d_model, R rows of the head. Unit: nats.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from llm_jax.base.batch import Batch
from llm_jax.base.tree import Tree
from llm_jax.config.model import ModelConfig
from llm_jax.model.activations import Activations
from llm_jax.model.decoder import head_weights, hidden_states, init_params, row_logits
from llm_jax.model.moe import Use, expert_use, imbalance
from llm_jax.training.head import _head_nats_backward, _head_nats_forward, cross_entropy, head_nats
from llm_jax.training.objective import Objective

_TOKENS_AT_ONCE = 1024  # whose scores over all rows of the head are in memory while texts are scored


head_nats.defvjp(_head_nats_forward, _head_nats_backward)


@jax.named_scope("loss")
def weighted_sum(nats_BT: jax.Array, weights_BT: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return (sum of weighted nats, sum of weights); all weights zero give (0, 0)."""
    return jnp.sum(jnp.where(weights_BT > 0, nats_BT * weights_BT, 0)), jnp.sum(weights_BT)


def next_token_nats(
    params: Tree,
    config: ModelConfig,
    batch: Batch,
    dropout_key: jax.Array | None,
    first_row: jax.typing.ArrayLike = 0,
) -> jax.Array:
    """Return cross-entropy of each next token, [B, T], without weights; dropout with a key, in a part of a
    batch that of its rows from `first_row` on.
    """
    return _nats_and_seen(params, config, batch, dropout_key, first_row)[0]


def _nats_and_seen(
    params: Tree,
    config: ModelConfig,
    batch: Batch,
    dropout_key: jax.Array | None,
    first_row: jax.typing.ArrayLike,
) -> tuple[jax.Array, Activations]:
    hidden_BTD, _, seen = hidden_states(
        params,
        config,
        batch.tokens,
        dropout_key=dropout_key,
        first_row=first_row,
        begin_BT=batch.begins,
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
    """Return (sum, weight) of the cross-entropy of each next token; dropout with a key. A mixture of experts
    adds its imbalance to the gradient, not to the sum, which stays comparable. Gradients of the parts of a
    batch add up to that of the whole, if each is given its place and what the whole makes of its experts.

    Args:
        params: of the model.
        config: its shape.
        batch: a whole one, or some rows of one.
        dropout_key: that of the whole batch.
        first_row: the first row's number in the whole batch.
        use: of the whole batch, where these are not all of it and the router is pulled.
    """
    nats_BT, seen = _nats_and_seen(params, config, batch, dropout_key, first_row)
    return balanced_sum(config, nats_BT, batch.weights, seen, use)


def balanced_sum(
    config: ModelConfig, nats_BT: jax.Array, weights_BT: jax.Array, seen: Activations, use: Use | None
) -> tuple[jax.Array, jax.Array]:
    """Return `weighted_sum`, with the gradient that pulls routers towards an even use of experts."""
    total, weight = weighted_sum(nats_BT, weights_BT)
    if balances_router(config):
        probabilities, chosen, _ = seen.blocks.routing
        use = use or expert_use(chosen, config.num_experts, weights_BT, weight)
        balance = config.router_balance * use.weight * imbalance(probabilities, weights_BT, use)
        total += (balance - jax.lax.stop_gradient(balance)).astype(total.dtype)
    return total, weight


NEXT_TOKEN = Objective(init_params, next_token_loss, next_token_nats)


def balances_router(config: ModelConfig) -> bool:
    """Return whether the loss has a gradient towards an even use of experts, which a part of a batch cannot
    know.
    """
    return bool(config.num_experts and config.router_balance)


def parts_use(params: Tree, config: ModelConfig, parts: Batch, key: jax.Array, first_rows: jax.Array) -> Use:
    """Return what a batch that is cut along B, [parts, B / parts, T], makes of its experts: a forward
    pass.
    """
    weight = jnp.sum(parts.weights)

    def part_shares(part: tuple[Batch, jax.Array]) -> jax.Array:
        batch, first_row = part
        _, _, seen = hidden_states(
            params,
            config,
            batch.tokens,
            dropout_key=key,
            first_row=first_row,
            begin_BT=batch.begins,
        )
        return expert_use(seen.blocks.routing.chosen, config.num_experts, batch.weights, weight).shares

    return Use(weight, jnp.sum(jax.lax.map(part_shares, (parts, first_rows)), axis=0))


@partial(jax.jit, static_argnums=1)
def token_nats(params: Tree, config: ModelConfig, batch: Batch) -> jax.Array:
    """Return nats of each target, [B, T], without dropout and without weights: what evaluation adds up."""
    return next_token_nats(params, config, batch, None)


class TargetScores(NamedTuple):
    """What a model gives each target."""

    nats: jax.Array  # [B, T]
    greedy: jax.Array  # [B, T] bool, whether greedy decoding would have chosen it


@partial(jax.jit, static_argnums=1)
def score_targets(params: Tree, config: ModelConfig, batch: Batch) -> TargetScores:
    """Return the nats that `token_nats` gives, and whether each target is the likeliest token.

    Scores of the head's rows are made for some tokens at a time, so that a window of any length fits.
    """
    hidden_BTD, _, _ = hidden_states(params, config, batch.tokens, begin_BT=batch.begins)

    def score(hidden_D: jax.Array, target: jax.Array) -> tuple[jax.Array, jax.Array]:
        rows_R = row_logits(params, config, hidden_D)
        # Ids that share the last row are equally likely; the first of them has the row's own number.
        return cross_entropy(rows_R, target, config.shared_ids), jnp.argmax(rows_R) == target

    flat = hidden_BTD.reshape(-1, config.d_model), batch.targets.reshape(-1)
    scores = jax.lax.map(lambda part: score(*part), flat, batch_size=_TOKENS_AT_ONCE)
    return TargetScores(*(score_N.reshape(batch.targets.shape) for score_N in scores))
