"""Attention: which slots a token sees, how much of each it takes, and what comes of it.

Legend: B batch, T query tokens, S key/value slots, N query heads, K key/value heads, G = N / K, H head_dim.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from llm_jax.config.model import ModelConfig
from llm_jax.model.norms import accumulation_dtype
from llm_jax.model.positions import Rotation, frequencies, rotation


class AttentionPattern(NamedTuple):
    """What the tokens of a layer see, and how they know distances."""

    mask: jax.Array  # [B, T, S] bool, True where attention may look
    turn: Rotation | None  # of queries and keys, where positions are rotary
    windowed: jax.Array  # [] bool, whether a window is in the mask
    start: jax.Array | None  # [B] int32, first real slot of left-padded rows; None where no row is padded


def attention_pattern(
    config: ModelConfig,
    query_T: jax.Array,
    num_slots: int,
    begin_BT: jax.Array,
    *,
    local: bool,
    start_B: jax.Array | None,
) -> AttentionPattern:
    """Return what tokens see in layers that see all before them or, `local`, the last ones of a window.

    Args:
        config: whose window and rotary positions hold.
        query_T: slots of the tokens.
        num_slots: S.
        begin_BT: slot where each token's own text begins, before which it sees nothing; [B, 1] where that is
            the same for all tokens of a row.
        local: whether the layers have a window.
        start_B: first real slot of each left-padded row; None where no row is padded.
    """
    slot_S = jnp.arange(num_slots)
    mask_BTS = (slot_S[None, None, :] <= query_T[None, :, None]) & (
        slot_S[None, None, :] >= begin_BT[:, :, None]
    )
    if local:
        mask_BTS &= slot_S[None, None, :] > query_T[None, :, None] - config.sliding_window
    windowed = jnp.bool_(local)
    if config.positions != "rotary":
        return AttentionPattern(mask_BTS, None, windowed, start_B)
    position_BT = jnp.maximum(query_T[None, :] - begin_BT, 0)
    rotary = config.rotary.in_windows() if local else config.rotary
    frequency_P = frequencies(rotary, config.rotary_dim)
    turn = rotation(position_BT, frequency_P, rotary.magnitude, accumulation_dtype(config.dtype))
    return AttentionPattern(mask_BTS, turn, windowed, start_B)


def cap(x: jax.Array, bound: float) -> jax.Array:
    """Return x, but bent so that it stays within +- `bound` (Gemma 2); 0 leaves it as it is."""
    return bound * jnp.tanh(x / bound) if bound else x


@jax.named_scope("attention")
def attention_weights(
    config: ModelConfig, q_BTNH: jax.Array, k_BSKH: jax.Array, mask_BTS: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Return softmax over slots of scaled q.k, exactly 0 where the mask is False; then the scores it was made
    of, after and before the mask. Each [B, N, T, S] in at least float32.
    """
    kind = accumulation_dtype(q_BTNH.dtype)
    q_BTKGH = q_BTNH.reshape(*q_BTNH.shape[:2], k_BSKH.shape[2], -1, q_BTNH.shape[3])
    scores_BKGTS = jnp.einsum("BTKGH,BSKH->BKGTS", q_BTKGH, k_BSKH, preferred_element_type=kind)
    scores_BNTS = scores_BKGTS.reshape(-1, q_BTNH.shape[2], *scores_BKGTS.shape[3:])
    scale = config.attention_scale or 1 / math.sqrt(config.head_dim)
    scores_BNTS = cap(scores_BNTS * scale, config.attention_cap)
    # The lowest finite number rather than -inf: a padded query may see no slot at all, and must not become
    # NaN.
    masked_BNTS = jnp.where(mask_BTS[:, None], scores_BNTS, jnp.finfo(kind).min)
    weights_BNTS = jax.nn.softmax(masked_BNTS, axis=-1)
    return weights_BNTS, masked_BNTS, scores_BNTS


@jax.named_scope("attention")
def mix(weights_BNTS: jax.Array, v_BSKH: jax.Array) -> jax.Array:
    """Return the values of the slots under these weights, [B, T, N, H]."""
    num_heads = weights_BNTS.shape[1]
    weights_BKGTS = weights_BNTS.reshape(len(weights_BNTS), v_BSKH.shape[2], -1, *weights_BNTS.shape[2:])
    mixed_BTKGH = jnp.einsum("BKGTS,BSKH->BTKGH", weights_BKGTS, v_BSKH)
    return mixed_BTKGH.reshape(*mixed_BTKGH.shape[:2], num_heads, -1)
