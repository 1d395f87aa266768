"""Parameter trees by path: nested dicts of arrays as flat dicts of 'a/b/c', and whole-tree comparison.

No arithmetic lives here (that is `jax.tree` and `optax.tree`), and neither jax nor flax is imported.
"""

from collections.abc import Iterator, Mapping
from math import prod
from typing import Any

from llm_jax.base.errors import CheckpointError

Tree = dict[str, Any]
State = dict[str, Any]  # of a run: trees by part, "params", "opt_state", "counters" and "ema"


def flatten(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield (path, leaf) with keys joined by '/', in the order of the tree."""
    for name, value in tree.items():
        path = f"{prefix}/{name}" if prefix else name
        if isinstance(value, Mapping):
            yield from flatten(value, path)
        else:
            yield path, value


def unflatten(leaves: Mapping[str, Any]) -> Tree:
    """Return the nested dict whose `flatten` gives these leaves."""
    tree: Tree = {}
    for path, leaf in leaves.items():
        *parents, name = path.split("/")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[name] = leaf
    return tree


def count_parameters(tree: Mapping[str, Any]) -> int:
    """Return number of scalars in all leaves (arrays or anything with a shape)."""
    return sum(prod(leaf.shape) for _, leaf in flatten(tree))


def require_same_shapes(got: Mapping[str, Any], wanted: Mapping[str, Any], source: str) -> None:
    """Raise CheckpointError that names the leaves of `got` that are missing, left over or of another shape.

    Args:
        got: the tree that was read.
        wanted: the tree that the model's configuration asks for (arrays or shape structs).
        source: what was read, for the message.
    """
    got_shapes = {path: tuple(leaf.shape) for path, leaf in flatten(got)}
    wanted_shapes = {path: tuple(leaf.shape) for path, leaf in flatten(wanted)}
    faults = [f"{path} is missing" for path in wanted_shapes if path not in got_shapes]
    faults += [f"{path} is not part of this model" for path in got_shapes if path not in wanted_shapes]
    faults += [
        f"{path} has shape {got_shapes[path]}, must have {shape}"
        for path, shape in wanted_shapes.items()
        if path in got_shapes and got_shapes[path] != shape
    ]
    if faults:
        more = f" (and {len(faults) - 3} more)" if len(faults) > 3 else ""
        raise CheckpointError(f"{source} does not fit the model: " + "; ".join(faults[:3]) + more)
