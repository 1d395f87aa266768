"""The two types of a parameter: that of the master which training moves, and the one that the model reads.

A step adds less to a parameter than bfloat16 can tell apart, and 0.999, by which second moments and averages
decay, is 1 in it. So parameters, moments, average and sums of gradients are float32 or wider whatever
`param_dtype` says; the model reads its parameters rounded to that, in training as everywhere.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from llm_jax.config.model import ModelConfig


def with_masters(model: ModelConfig) -> ModelConfig:
    """Return the model whose parameters are as training keeps them: float32, or float64."""
    return dataclasses.replace(model, param_dtype="float64" if model.param_dtype == "float64" else "float32")


def rounded(masters: Any, model: ModelConfig) -> Any:
    """Return what the model reads, in its `param_dtype`: the masters themselves where that is their type."""
    kind = jnp.finfo(model.param_dtype)

    def narrow(array: jax.Array) -> jax.Array:
        if array.dtype == kind.dtype:
            return array
        # XLA may leave out a conversion that is converted back: the loss would be that of other parameters.
        return jax.lax.reduce_precision(array, kind.nexp, kind.nmant).astype(kind.dtype)

    return jax.tree.map(narrow, masters)
