"""What a model scores on held-out text: nats, perplexity, bits per byte, and how sure that is."""

import math
from typing import NamedTuple

import numpy as np


class Score(NamedTuple):
    """A loss over a whole split."""

    loss: float  # nats per token
    standard_error: float  # of the loss, taking tokens as independent
    perplexity: float
    bits_per_byte: float
    tokens: int  # targets scored
    bytes: int  # UTF-8 bytes of the text that those targets stand for


def bits_per_byte(total_nats: float, num_bytes: int) -> float:
    """Return nats over a text as bits per byte of it, comparable across tokenizers; NaN where it has no
    bytes.
    """
    return total_nats / math.log(2) / num_bytes if num_bytes else math.nan


def summarise(nats: np.ndarray, num_bytes: int) -> Score:
    """Return the score of targets [N] that stand for `num_bytes` UTF-8 bytes of the text."""
    mean = float(nats.mean())
    return Score(
        loss=mean,
        standard_error=float(nats.std(ddof=1) / math.sqrt(len(nats))) if len(nats) > 1 else math.nan,
        perplexity=math.exp(mean) if mean < 700 else math.inf,
        bits_per_byte=bits_per_byte(float(nats.sum()), num_bytes),
        tokens=len(nats),
        bytes=num_bytes,
    )
