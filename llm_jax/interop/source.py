"""Another program's model as the rest of this room sees it, whatever file it lies in, and how names out of
such a file are shown.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

_SHOWN = 120  # characters


class Source(NamedTuple):
    """Another program's model, read one tensor at a time."""

    config: dict[str, Any]  # as Hugging Face's config.json says it
    shapes: dict[str, tuple[int, ...]]  # every tensor's, by Hugging Face's names
    read: Callable[[str], np.ndarray]  # one tensor, float32, float16 or ml_dtypes' bfloat16
    tokenizer: dict[str, Any]  # GGUF's keys that begin with "tokenizer."; empty for a directory


def quoted(text: object) -> str:
    """Return text that a stranger wrote, for one line of a message: quoted, escaped, and cut where it is
    long.
    """
    whole = str(text)
    return repr(whole if len(whole) <= _SHOWN else whole[:_SHOWN] + "…")
