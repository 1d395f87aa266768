"""What tells attention where a token stands: a table that is added to it, or a turn of queries and keys.

Legend: B batch, T tokens, D d_model, N heads, H head_dim, P pairs of a head's entries that are turned.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from llm_jax.config.model import RotaryConfig

_LONGEST = 10000.0  # 2 pi times this is the longest wavelength, in tokens


def sinusoidal_table(num_positions: int, d_model: int) -> np.ndarray:
    """Return positions as sines (even columns) and cosines (odd), float64 [T, D] (Vaswani et al. 2017)."""
    frequency = np.exp(np.arange(0, d_model, 2) * (-np.log(_LONGEST) / d_model))
    angle = np.arange(num_positions)[:, None] * frequency
    return np.stack([np.sin(angle), np.cos(angle)], axis=-1).reshape(num_positions, d_model)


class Rotation(NamedTuple):
    """The turn of each token's pairs of entries, [B, T, P] each."""

    cosine: jax.Array
    sine: jax.Array


def frequencies(rotary: RotaryConfig, turned: int) -> np.ndarray:
    """Return angle in radians by which one token more turns each pair, float64 [P], from fast to slow.

    Su et al. 2021.

    Args:
        rotary: theta, and how frequencies are scaled: all alike (Chen et al. 2023), the slow ones
            (Llama 3), or all but the fast ones by a ramp over the pairs (YaRN, Peng et al. 2023).
        turned: entries of a head that are turned, two for each pair.
    """
    frequency_P = rotary.theta ** (-np.arange(0, turned, 2) / turned)
    if rotary.scaling == "none":
        return frequency_P
    if rotary.scaling == "linear":
        scaled_P: np.ndarray | float = 1.0
    elif rotary.scaling == "llama3":
        turns_P = rotary.original_context * frequency_P / (2 * np.pi)
        scaled_P = (rotary.fast_turns - turns_P) / (rotary.fast_turns - rotary.slow_turns)
    else:
        first, last = (
            turned * math.log(rotary.original_context / (2 * np.pi * turns)) / (2 * math.log(rotary.theta))
            for turns in (rotary.fast_turns, rotary.slow_turns)
        )
        if rotary.round_pairs:
            first, last = math.floor(first), math.ceil(last)
        first, last = max(first, 0), min(last, turned - 1)
        scaled_P = (np.arange(turned // 2) - first) / max(last - first, 0.001)
    scaled_P = np.clip(scaled_P, 0, 1)
    return frequency_P * (1 - scaled_P + scaled_P / rotary.factor)


def rotation(position_BT: jax.Array, frequency_P: np.ndarray, magnitude: float, dtype: jnp.dtype) -> Rotation:
    """Turn by angles that grow with the position; `magnitude` multiplies what is turned."""
    angle_BTP = position_BT[:, :, None] * jnp.asarray(frequency_P, dtype)[None, None]
    return Rotation(jnp.cos(angle_BTP) * magnitude, jnp.sin(angle_BTP) * magnitude)


@jax.named_scope("positions")
def rotate(x_BTNH: jax.Array, turn: Rotation) -> jax.Array:
    """Return queries or keys with their first 2 P entries turned in the planes of entries i and i + P, so
    that their products depend on distances alone.
    """
    pairs = turn.cosine.shape[-1]
    cosine, sine = (part[:, :, None].astype(jnp.promote_types(x_BTNH.dtype, jnp.float32)) for part in turn)
    first, second, still = jnp.split(x_BTNH, [pairs, 2 * pairs], axis=-1)
    turned = [first * cosine - second * sine, second * cosine + first * sine]
    return jnp.concatenate([*turned, still], axis=-1).astype(x_BTNH.dtype)
