"""The head of a model that tells labels apart: the decoder's residual stream, read off at some tokens.

Legend: B batch, T tokens, D d_model, C labels, S slots of what is known of a token's word.
"""

import jax
import jax.numpy as jnp

from llm_jax.base.tree import Tree
from llm_jax.config.model import ModelConfig
from llm_jax.model import decoder
from llm_jax.model.norms import accumulation_dtype

LABEL_HEAD = "label_head"
FACTORS = "factor_embedding"


def init_params(key: jax.Array, config: ModelConfig) -> Tree:
    """Return fresh parameters of a decoder whose head has a row for each label. It begins at zero, where all
    labels are equally likely; so do embeddings of what is known of words, which then say nothing.
    """
    params = decoder.init_params(key, config)
    params.pop("head", None)
    kernel_DC = jnp.zeros((config.d_model, config.num_labels), config.param_dtype)
    params |= {LABEL_HEAD: {"kernel": kernel_DC, "bias": kernel_DC[0]}}
    if config.factor_values:
        params[FACTORS] = {"embedding": jnp.zeros((config.factor_values, config.d_model), config.param_dtype)}
    return params


def factor_vectors(params: Tree, config: ModelConfig, factors_BTS: jax.Array) -> jax.Array:
    """Return the sum of the embeddings of what is known of each token's word, [B, T, D]; number 0 adds
    nothing.
    """
    table = params[FACTORS]["embedding"].astype(config.dtype)
    return jnp.sum(table[factors_BTS], axis=2, where=(factors_BTS > 0)[..., None])


def label_scores(params: Tree, config: ModelConfig, hidden: jax.Array) -> jax.Array:
    """Return scores of labels, [..., C] in at least float32, from hidden states [..., D]."""
    head = jax.tree.map(lambda x: x.astype(config.dtype), params[LABEL_HEAD])
    return decoder.head_scores(hidden.astype(config.dtype), head["kernel"], head["bias"])


def mean_so_far(hidden_BTD: jax.Array, begin_BT: jax.Array) -> jax.Array:
    """Return for each token the mean of the hidden states from the beginning of its text up to itself."""
    sums_BTD = jnp.cumsum(hidden_BTD.astype(accumulation_dtype(hidden_BTD.dtype)), axis=1)
    before_BTD = jnp.take_along_axis(
        jnp.pad(sums_BTD, ((0, 0), (1, 0), (0, 0))), begin_BT[:, :, None], axis=1
    )
    counts_BT = jnp.arange(1, hidden_BTD.shape[1] + 1)[None] - begin_BT
    return ((sums_BTD - before_BTD) / counts_BT[:, :, None]).astype(hidden_BTD.dtype)
