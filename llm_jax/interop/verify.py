"""What is shown and compared of weights that were converted."""

from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

import numpy as np

from llm_jax.base.bars import tracked
from llm_jax.base.errors import CheckpointError
from llm_jax.base.tree import Tree, flatten

_Item = TypeVar("_Item")


def shown(parts: Iterator[_Item], count: int) -> Iterator[_Item]:
    """Return the same, with a bar of how many of them are done."""
    return tracked(parts, "tensors", count)


def require_equal(got: Tree, wanted: Tree, where: Path) -> None:
    """Raise CheckpointError for leaves of which a bit differs."""
    others = dict(flatten(wanted))
    if odd := [
        path for path, leaf in flatten(got) if not np.array_equal(np.asarray(leaf), np.asarray(others[path]))
    ]:
        raise CheckpointError(f"{where} does not hold the bits that were written: {odd[0]} differs")
