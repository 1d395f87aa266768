"""Rows that many ids share, written out for other programs, which have a row for each id."""

import dataclasses

import numpy as np

from llm_jax.base.tree import flatten, unflatten
from llm_jax.language_model.model import LanguageModel

# Where the vocabulary's axis lies.
_TABLES = {"token_embedding/embedding": 0, "head/kernel": 1, "head/bias": 0}


def with_a_row_for_each_id(model: LanguageModel) -> LanguageModel:
    """Return the model with its shared row once for each of its ids; its logits are the same."""
    config = model.config
    if not config.shared_ids:
        return model
    counts = np.ones(config.num_rows + config.spare_embedding_rows, np.int64)
    counts[config.num_rows - 1] = config.shared_ids
    leaves = dict(flatten(model.params))
    for path, axis in _TABLES.items():
        if path in leaves:
            leaf = np.asarray(leaves[path])
            leaves[path] = np.repeat(leaf, counts[: leaf.shape[axis]], axis)
    own = dataclasses.replace(config, shared_ids=0)
    return dataclasses.replace(model, params=unflatten(leaves), config=own)
