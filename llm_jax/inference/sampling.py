"""From logits to the next token: penalties, filters and the draw, all pure. B batch, V vocabulary."""

import dataclasses

import jax
import jax.numpy as jnp

from llm_jax.errors import UserError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sampling:
    """How the next token is chosen; filters apply in the order of the fields."""

    repetition_penalty: float = 1.0
    """Divides positive and multiplies negative logits of tokens already present (Keskar et al. 2019); 1 is
    off.
    """
    temperature: float = 1.0
    """Divides the logits; 0 takes the likeliest token."""
    top_k: int = 0
    """Keeps the k likeliest tokens; 0 keeps all."""
    top_p: float = 1.0
    """Keeps the fewest likeliest tokens that together have this probability (Holtzman et al. 2019)."""
    min_p: float = 0.0
    """Keeps tokens with at least this share of the likeliest one's probability (Nguyen et al. 2024)."""

    def __post_init__(self) -> None:
        rules = {
            f"repetition_penalty ({self.repetition_penalty}) must be positive": 0
            < self.repetition_penalty
            < float("inf"),
            f"temperature ({self.temperature}) must be 0 or more": 0 <= self.temperature < float("inf"),
            f"top_k ({self.top_k}) must be 0 or more": self.top_k >= 0,
            f"top_p ({self.top_p}) must be above 0 and at most 1": 0 < self.top_p <= 1,
            f"min_p ({self.min_p}) must be from 0 to 1": 0 <= self.min_p <= 1,
        }
        if broken := [rule for rule, holds in rules.items() if not holds]:
            raise UserError("; ".join(broken))


def sample(keys_B: jax.Array, logits_BV: jax.Array, seen_BV: jax.Array, sampling: Sampling) -> jax.Array:
    """Draws one token a row, int32 [B].

    Args:
        keys_B: one key a row, so that a row's draw does not depend on its neighbours.
        logits_BV: float32 or wider.
        seen_BV: True for tokens that the row already has (for the repetition penalty).
        sampling: static.
    """
    logits_BV = penalize(logits_BV, seen_BV, sampling.repetition_penalty)
    if sampling.temperature == 0:
        return jnp.argmax(logits_BV, axis=-1).astype(jnp.int32)
    logits_BV = keep_likely(logits_BV / sampling.temperature, sampling)
    return jax.vmap(jax.random.categorical)(keys_B, logits_BV).astype(jnp.int32)


def penalize(logits_BV: jax.Array, seen_BV: jax.Array, penalty: float) -> jax.Array:
    """Logits with those of seen tokens made less likely."""
    if penalty == 1:
        return logits_BV
    lowered_BV = jnp.where(logits_BV > 0, logits_BV / penalty, logits_BV * penalty)
    return jnp.where(seen_BV, lowered_BV, logits_BV)


def keep_likely(logits_BV: jax.Array, sampling: Sampling) -> jax.Array:
    """Logits with everything that top-k, top-p and min-p leave out at -inf; the likeliest token always stays."""
    if 0 < sampling.top_k < logits_BV.shape[-1]:
        kth_B1 = jax.lax.top_k(logits_BV, sampling.top_k)[0][:, -1:]
        logits_BV = jnp.where(logits_BV >= kth_B1, logits_BV, -jnp.inf)
    if sampling.top_p < 1:
        sorted_BV = jnp.sort(logits_BV, axis=-1, descending=True)
        mass_BV = jnp.cumsum(jax.nn.softmax(sorted_BV, axis=-1), axis=-1)
        # A token stays while the mass before it is below top_p; the last that stays sets the threshold.
        kept_B1 = jnp.sum(mass_BV < sampling.top_p, axis=-1, keepdims=True)
        kept_B1 = jnp.minimum(kept_B1, logits_BV.shape[-1] - 1)
        threshold_B1 = jnp.take_along_axis(sorted_BV, kept_B1, axis=-1)
        logits_BV = jnp.where(logits_BV >= threshold_B1, logits_BV, -jnp.inf)
    if sampling.min_p > 0:
        least_B1 = logits_BV.max(axis=-1, keepdims=True) + jnp.log(sampling.min_p)
        logits_BV = jnp.where(logits_BV >= least_B1, logits_BV, -jnp.inf)
    return logits_BV
