"""What the decoder computes on the way, handed out by return value for those who look inside.

Every forward pass returns it; under `jit`, what nobody uses is never computed. B batch, T query tokens, S
key/value slots, D d_model, F MLP width, N heads, H head_dim, L layers.
"""

from typing import NamedTuple

import jax


class SeenInBlock(NamedTuple):
    """One block from its input to its output; `Seen.blocks` has all of them, stacked on a leading L."""

    block_input: jax.Array  # [B, T, D]
    attention_input: jax.Array  # [B, T, D], normed
    queries: jax.Array  # [B, T, N, H]
    keys: jax.Array  # [B, S, N, H]
    values: jax.Array  # [B, S, N, H]
    scores: jax.Array  # [B, N, T, S], before the mask
    masked_scores: jax.Array  # [B, N, T, S]
    weights: jax.Array  # [B, N, T, S], softmax, before dropout
    mixed: jax.Array  # [B, T, N, H], values under the weights
    attention_output: jax.Array  # [B, T, D], projected, before dropout
    after_attention: jax.Array  # [B, T, D], the residual stream
    mlp_input: jax.Array  # [B, T, D], normed
    mlp_hidden: jax.Array  # [B, T, F], before the activation
    mlp_active: jax.Array  # [B, T, F], after it
    mlp_output: jax.Array  # [B, T, D], before dropout
    block_output: jax.Array  # [B, T, D], the residual stream


class Seen(NamedTuple):
    """A whole forward pass up to the final norm."""

    token_embedding: jax.Array  # [B, T, D]
    position_embedding: jax.Array  # [B, T, D]
    mask: jax.Array  # [B, T, S] bool, True where attention may look
    blocks: SeenInBlock
    hidden: jax.Array  # [B, T, D], after the final norm
