"""Muon: the blocks' kernels move by orthogonal matrices, momentum without its singular values.

Jordan et al. 2024, by optax; scaled as in Liu et al. 2025.
"""

import math
from typing import Any

import jax
import optax
from optax.contrib import MuonDimensionNumbers, scale_by_muon

from llm_jax.base.tree import Tree

_ROOT_MEAN_SQUARE = 0.2  # about that of AdamW's update

# The axes that go in and those that come out, counted from the end: there may be one of layers before them.
_AXES = {
    "query": ((-3,), (-2, -1)),
    "key": ((-3,), (-2, -1)),
    "value": ((-3,), (-2, -1)),
    "attention_output": ((-3, -2), (-1,)),
    "mlp_gate": ((-2,), (-1,)),
    "mlp_up": ((-2,), (-1,)),
    "mlp_down": ((-2,), (-1,)),
}


def muon_for_kernels(others: optax.GradientTransformation) -> optax.GradientTransformation:
    """Return Muon's rescaling for the kernels of the blocks, `others` for embeddings, head, routers, biases,
    norms.

    An orthogonal update is given the root mean square of AdamW's, so that both share a learning rate and a
    weight decay.
    """
    muon = optax.chain(
        scale_by_muon(weight_dimension_numbers=_axes),
        optax.stateless(lambda updates, _: jax.tree.map_with_path(_to_adams_size, updates)),
    )
    return optax.partition({"muon": muon, "others": others}, _labels)


def is_muons(path: tuple) -> bool:
    """Return whether Muon moves the parameter at this path of the tree."""
    return path[0].key == "blocks" and path[-1].key == "kernel" and path[-2].key in _AXES


def _labels(params: Tree) -> Tree:
    return jax.tree.map_with_path(lambda path, _: "muon" if is_muons(path) else "others", params)


def _axes(kernels: Any) -> Any:
    return jax.tree.map_with_path(lambda path, _: MuonDimensionNumbers(*_AXES[path[-2].key]), kernels)


def _to_adams_size(path: tuple, update: jax.Array) -> jax.Array:
    widths = [math.prod(update.shape[axis] for axis in axes) for axes in _AXES[path[-2].key]]
    return update * (_ROOT_MEAN_SQUARE * math.sqrt(max(widths)))
