"""Losses of labels as (sum, weight): cross-entropy at the tokens where a text's labels are read.

Legend: B batch, T tokens, C labels. Unit: nats.
"""

from functools import partial
from typing import Literal, get_args

import jax

from llm_jax.base.batch import Batch
from llm_jax.base.tree import Tree
from llm_jax.config.model import ModelConfig
from llm_jax.model.activations import Activations
from llm_jax.model.decoder import hidden_states
from llm_jax.model.heads import factor_vectors, init_params, label_scores, mean_so_far
from llm_jax.model.moe import Use
from llm_jax.training.head import cross_entropy
from llm_jax.training.losses import balanced_sum
from llm_jax.training.objective import Objective

Pooling = Literal["last", "mean"]


def batch_scores(
    params: Tree,
    config: ModelConfig,
    batch: Batch,
    dropout_key: jax.Array | None,
    first_row: jax.typing.ArrayLike = 0,
    *,
    pooling: Pooling,
) -> tuple[jax.Array, Activations]:
    """Return scores of labels at every token, [B, T, C] in at least float32, and all that came before them.

    Args:
        params: of `heads.init_params`.
        config: the decoder.
        batch: rows that may hold several texts; `begins` says where each does.
        dropout_key: that of the whole batch; None for no dropout.
        first_row: the first row's number in the whole batch.
        pooling: what a token's labels are read off: its own hidden state, or the mean of its text's so far.
    """
    hidden_BTD, _, seen = hidden_states(
        params,
        config,
        batch.tokens,
        dropout_key=dropout_key,
        first_row=first_row,
        begin_BT=batch.begins,
        added_BTD=None if batch.factors is None else factor_vectors(params, config, batch.factors),
    )
    read_BTD = mean_so_far(hidden_BTD, batch.begins) if pooling == "mean" else hidden_BTD
    return label_scores(params, config, read_BTD), seen


def _nats(
    pooling: Pooling,
    params: Tree,
    config: ModelConfig,
    batch: Batch,
    dropout_key: jax.Array | None,
    first_row: jax.typing.ArrayLike = 0,
) -> jax.Array:
    scores_BTC, _ = batch_scores(params, config, batch, dropout_key, first_row, pooling=pooling)
    return cross_entropy(scores_BTC, batch.targets)


def _loss(
    pooling: Pooling,
    params: Tree,
    config: ModelConfig,
    batch: Batch,
    dropout_key: jax.Array | None,
    first_row: jax.typing.ArrayLike = 0,
    use: Use | None = None,
) -> tuple[jax.Array, jax.Array]:
    scores_BTC, seen = batch_scores(params, config, batch, dropout_key, first_row, pooling=pooling)
    return balanced_sum(config, cross_entropy(scores_BTC, batch.targets), batch.weights, seen, use)


OBJECTIVES = {
    pooling: Objective(init_params, partial(_loss, pooling), partial(_nats, pooling), packed=True)
    for pooling in get_args(Pooling)
}
