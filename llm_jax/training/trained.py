"""Which parameters are trained: all, all but the frozen ones, or adapters and what belongs to a task."""

from collections.abc import Callable
from fnmatch import fnmatchcase
from typing import Any

from llm_jax.base.errors import UserError
from llm_jax.base.tree import Tree, flatten
from llm_jax.config.run import OptimConfig
from llm_jax.model.heads import FACTORS, LABEL_HEAD
from llm_jax.model.lora import IN, MAGNITUDE, OUT


def split_trained(params: Any, optim: OptimConfig) -> tuple[Any, Any]:
    """Return the trees of what is trained and of what is not; the parameters as they are, and {}, where all
    is.

    Args:
        params: blocks stacked or not.
        optim: what is frozen.
    """
    if not optim.frozen and not optim.lora.rank:
        return params, {}
    return _split(params, lambda path: is_trained(path, optim))


def is_trained(path: str, optim: OptimConfig) -> bool:
    """Return whether the parameter at a path, such as "blocks/query/kernel", is trained."""
    if optim.lora.rank:
        return path.split("/")[-1] in (IN, OUT, MAGNITUDE) or path.split("/")[0] in (LABEL_HEAD, FACTORS)
    return not any(fnmatchcase(path, pattern) for pattern in patterns_of(optim))


def patterns_of(optim: OptimConfig) -> list[str]:
    """Return the patterns of paths that are frozen."""
    return [pattern.strip() for pattern in optim.frozen.split(",")] if optim.frozen else []


def require_some_trained(params: Tree, optim: OptimConfig) -> None:
    """Raise UserError where a pattern freezes nothing, or nothing is left to train."""
    paths = [path for path, _ in flatten(params)]
    for pattern in patterns_of(optim):
        if not any(fnmatchcase(path, pattern) for path in paths):
            raise UserError(
                f"optim.frozen ({pattern}) must be a path of parameters, or a pattern of some, such as "
                f"{paths[0]} or blocks/*"
            )
    if not any(is_trained(path, optim) for path in paths):
        raise UserError(f"optim.frozen ({optim.frozen}) must leave something to train")


def join(first: Any, second: Any) -> Any:
    """Return the tree whose halves `split_trained` gave."""
    if isinstance(first, tuple) and isinstance(second, tuple):
        return tuple(join(a, b) for a, b in zip(first, second, strict=True))
    if isinstance(first, dict) and isinstance(second, dict):
        shared = {name: join(first[name], second[name]) for name in first.keys() & second.keys()}
        return {**first, **second, **shared}
    return first


def _split(tree: Any, chosen: Callable[[str], bool], prefix: str = "") -> tuple[Any, Any]:
    """A tree as two, without empty nodes; layers in a tuple have one path."""
    if isinstance(tree, tuple):
        pairs = [_split(each, chosen, prefix) for each in tree]
        return tuple(a for a, _ in pairs if a), tuple(b for _, b in pairs if b)
    found: tuple[Tree, Tree] = ({}, {})
    for name, node in tree.items():
        path = f"{prefix}/{name}" if prefix else name
        if isinstance(node, dict | tuple):
            for half, part in zip(found, _split(node, chosen, path), strict=True):
                if part:
                    half[name] = part
        else:
            found[not chosen(path)][name] = node
    return found
