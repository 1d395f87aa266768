"""The records that cross from data to training and evaluation. B batch, T tokens, N tokens of a text."""

from typing import Any, NamedTuple

import numpy as np


class Batch(NamedTuple):
    """Inputs, the tokens that follow them, and how much each of those counts in the loss."""

    tokens: Any  # [B, T] int32
    targets: Any  # [B, T] int32, tokens moved on by one
    weights: Any  # [B, T] float32, 0 where a target is not scored
    begins: Any = None  # [B, T] int32, slot where each token's own text begins; None: every row is one text
    factors: Any = None  # [B, T, S] int32, numbers of what is known of each token's word (`data.factors`)


class Prompted(NamedTuple):
    """Token ids of a text, and how many of the first are only what stands before it."""

    tokens: np.ndarray  # [N] integers
    given: int  # at least 1 where no start ids stand before the first token, which then cannot be scored


class Window(NamedTuple):
    """A row of one text: it reads from `begin` on, and scores the tokens from `first` up to `last`."""

    text: int  # its number
    begin: int
    first: int
    last: int


class Rows(NamedTuple):
    """A batch of windows that is not cut yet."""

    windows: list[Window]
    width: int  # tokens of a row
    size: int  # rows; those after the windows are empty
