"""What the decoder computes on the way, handed out by return value for those who look inside.

Every forward pass returns it; under `jit`, what nobody uses is never computed. B batch, T query tokens, S
key/value slots, D d_model, F MLP width, N query heads, K key/value heads, H head_dim, L layers. Fields are
jax.Array, or numpy arrays once fetched from the device.
"""

from typing import Any, NamedTuple


class SeenInBlock(NamedTuple):
    """One block from its input to its output; `Activations.blocks` has all, stacked on a leading L."""

    block_input: Any  # [B, T, D]
    attention_input: Any  # [B, T, D], normed
    queries: Any  # [B, T, N, H], normed and turned where the model does
    keys: Any  # [B, S, K, H], likewise
    values: Any  # [B, S, K, H]
    scores: Any  # [B, N, T, S], capped where the model does, before the mask
    masked_scores: Any  # [B, N, T, S]
    weights: Any  # [B, N, T, S], softmax, before dropout
    mixed: Any  # [B, T, N, H], values under the weights
    attention_output: Any  # [B, T, D], projected (and normed where the model does), before dropout
    after_attention: Any  # [B, T, D], the residual stream
    mlp_input: Any  # [B, T, D], normed
    mlp_hidden: (
        Any  # [B, T, F], before the activation (of the gate, where there is one); [B, T, C, F] in C experts
    )
    mlp_active: Any  # likewise, after it (and times what the gate lets pass)
    routing: Any  # moe.Routing, or None where there are no experts
    mlp_output: Any  # [B, T, D], before dropout
    block_output: Any  # [B, T, D], the residual stream


class Activations(NamedTuple):
    """A whole forward pass up to the final norm."""

    token_embedding: Any  # [B, T, D]
    position_embedding: Any  # [B, T, D], or None where positions turn queries and keys
    attention_pattern: Any  # AttentionPattern of layers without a window
    blocks: SeenInBlock
    hidden: Any  # [B, T, D], after the final norm
