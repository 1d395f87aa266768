"""A forward pass that shows what is inside."""

from functools import partial

import jax
import numpy as np

from llm_jax.base.tree import Tree
from llm_jax.config.model import ModelConfig
from llm_jax.model.activations import Activations
from llm_jax.model.decoder import forward


@partial(jax.jit, static_argnums=1)
def _look(params: Tree, config: ModelConfig, tokens_BT: jax.Array) -> tuple[jax.Array, Activations]:
    logits_BTV, _, seen = forward(params, config, tokens_BT)
    return logits_BTV, seen


def look(params: Tree, config: ModelConfig, tokens_BT: np.ndarray) -> tuple[np.ndarray, Activations]:
    """Return logits [B, T, V] and everything on the way to them, as numpy arrays, without dropout."""
    return jax.device_get(_look(params, config, tokens_BT))
