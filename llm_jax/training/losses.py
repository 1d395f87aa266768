"""Losses as (sum, weight), so that masks, accumulation and data parallelism add both and divide once.

Legend: B batch, T tokens, R rows of the head. Unit: nats.
"""

import math
from functools import partial

import jax
import jax.numpy as jnp
import optax

from llm_jax.batch import Batch
from llm_jax.config import ModelConfig
from llm_jax.model.decoder import hidden_states, row_logits
from llm_jax.tree import Tree


def cross_entropy(row_logits_BTR: jax.Array, targets_BT: jax.Array, shared_ids: int = 0) -> jax.Array:
    """Nats of each target, [B, T]; the last `shared_ids` ids have the last row's score each."""
    if not shared_ids:
        return optax.losses.softmax_cross_entropy_with_integer_labels(row_logits_BTR, targets_BT)
    # The row stands for all of them in the sum of exponentials, and its probability is split evenly.
    nats_of_one = math.log(shared_ids)
    last = row_logits_BTR.shape[-1] - 1
    together_BTR = row_logits_BTR.at[..., last].add(nats_of_one)
    nats_BT = optax.losses.softmax_cross_entropy_with_integer_labels(
        together_BTR, jnp.minimum(targets_BT, last)
    )
    return nats_BT + jnp.where(targets_BT >= last, nats_of_one, 0).astype(nats_BT.dtype)


def weighted_sum(nats_BT: jax.Array, weights_BT: jax.Array) -> tuple[jax.Array, jax.Array]:
    """(sum of weighted nats, sum of weights); all weights zero give (0, 0)."""
    return jnp.sum(jnp.where(weights_BT > 0, nats_BT * weights_BT, 0)), jnp.sum(weights_BT)


def next_token_nats(
    params: Tree, config: ModelConfig, batch: Batch, dropout_key: jax.Array | None
) -> jax.Array:
    """Cross-entropy of each next token, [B, T], without weights; dropout with a key."""
    hidden_BTD, _, _ = hidden_states(params, config, batch.tokens, dropout_key=dropout_key)
    return cross_entropy(row_logits(params, config, hidden_BTD), batch.targets, config.shared_ids)


def next_token_loss(
    params: Tree, config: ModelConfig, batch: Batch, dropout_key: jax.Array | None
) -> tuple[jax.Array, jax.Array]:
    """(sum, weight) of the cross-entropy of each next token; dropout with a key."""
    return weighted_sum(next_token_nats(params, config, batch, dropout_key), batch.weights)


@partial(jax.jit, static_argnums=1)
def token_nats(params: Tree, config: ModelConfig, batch: Batch) -> jax.Array:
    """Nats of each target, [B, T], without dropout and without weights: what evaluation adds up."""
    return next_token_nats(params, config, batch, None)
