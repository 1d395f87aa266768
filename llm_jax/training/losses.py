"""Losses as (sum, weight), so that masks, accumulation and data parallelism add both and divide once.

Legend: B batch, T tokens, V vocabulary. Unit: nats.
"""

from functools import partial

import jax
import jax.numpy as jnp
import optax

from llm_jax.batch import Batch
from llm_jax.config import ModelConfig
from llm_jax.model.decoder import forward
from llm_jax.tree import Tree


def cross_entropy_sum(
    logits_BTV: jax.Array, targets_BT: jax.Array, weights_BT: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """(sum of weighted nats, sum of weights); all weights zero give (0, 0)."""
    nats_BT = optax.losses.softmax_cross_entropy_with_integer_labels(logits_BTV, targets_BT)
    return jnp.sum(jnp.where(weights_BT > 0, nats_BT * weights_BT, 0)), jnp.sum(weights_BT)


def next_token_loss(
    params: Tree, config: ModelConfig, batch: Batch, dropout_key: jax.Array | None
) -> tuple[jax.Array, jax.Array]:
    """(sum, weight) of the cross-entropy of each next token; dropout with a key."""
    logits_BTV, _ = forward(params, config, batch.tokens, dropout_key=dropout_key)
    return cross_entropy_sum(logits_BTV, batch.targets, batch.weights)


@partial(jax.jit, static_argnums=1)
def token_nats(params: Tree, config: ModelConfig, batch: Batch) -> jax.Array:
    """Nats of each target, [B, T], without dropout and without weights: what evaluation adds up."""
    logits_BTV, _ = forward(params, config, batch.tokens)
    return optax.losses.softmax_cross_entropy_with_integer_labels(logits_BTV, batch.targets)
