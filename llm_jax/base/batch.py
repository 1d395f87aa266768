"""The one record that crosses from data to training. B batch, T tokens."""

from typing import Any, NamedTuple


class Batch(NamedTuple):
    """Inputs, the tokens that follow them, and how much each of those counts in the loss."""

    tokens: Any  # [B, T] int32
    targets: Any  # [B, T] int32, tokens moved on by one
    weights: Any  # [B, T] float32, 0 where a target is not scored
