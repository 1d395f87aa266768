"""What tells attention where a token stands: a table that is added to it, or a turn of queries and keys.

Legend: B batch, T tokens, D d_model, N heads, H head_dim.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

_LONGEST = 10000.0  # 2 pi times this is the longest wavelength, in tokens


def sinusoidal_table(num_positions: int, d_model: int) -> np.ndarray:
    """Positions as sines (even columns) and cosines (odd), float64 [T, D] (Vaswani et al. 2017)."""
    frequency = np.exp(np.arange(0, d_model, 2) * (-np.log(_LONGEST) / d_model))
    angle = np.arange(num_positions)[:, None] * frequency
    return np.stack([np.sin(angle), np.cos(angle)], axis=-1).reshape(num_positions, d_model)


class Rotation(NamedTuple):
    """The turn of each token's pairs of entries, float32 [B, T, H / 2] each."""

    cosine: jax.Array
    sine: jax.Array


def rotation(position_BT: jax.Array, head_dim: int) -> Rotation:
    """Turns by angles that grow with the position, fast in the first pair and slow in the last one.

    Su et al. 2021.
    """
    frequency = np.exp(np.arange(0, head_dim, 2) * (-np.log(_LONGEST) / head_dim))
    angle = position_BT[:, :, None] * jnp.asarray(frequency, jnp.float32)[None, None]
    return Rotation(jnp.cos(angle), jnp.sin(angle))


def rotate(x_BTNH: jax.Array, turn: Rotation) -> jax.Array:
    """Queries or keys turned in the planes of entries i and i + H / 2, so that their products depend on
    distances alone.
    """
    cosine, sine = (part[:, :, None].astype(jnp.promote_types(x_BTNH.dtype, jnp.float32)) for part in turn)
    first, second = jnp.split(x_BTNH, 2, axis=-1)
    turned = jnp.concatenate([first * cosine - second * sine, second * cosine + first * sine], axis=-1)
    return turned.astype(x_BTNH.dtype)
