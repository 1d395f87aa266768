"""From logits to the next token: penalties, filters and the draw, all pure. B batch, V vocabulary."""

import jax
import jax.numpy as jnp

from llm_jax.config.decoding import SamplingConfig


def sample(
    keys_B: jax.Array, logits_BV: jax.Array, seen_BV: jax.Array, sampling: SamplingConfig
) -> jax.Array:
    """Draw one token a row, int32 [B].

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


def log_probs(logits_BV: jax.Array, tokens_B: jax.Array) -> jax.Array:
    """Return the log-probability in nats of one token a row, [B], under the model's own distribution: no
    penalty, temperature or filter is in it.
    """
    chosen_B = jnp.take_along_axis(logits_BV, tokens_B[:, None], axis=-1)[:, 0]
    return chosen_B - jax.nn.logsumexp(logits_BV, axis=-1)


def probabilities(logits_BV: jax.Array, sampling: SamplingConfig) -> jax.Array:
    """Return what `sample` draws with where nothing is penalized, [B, V]; all on one token at
    temperature 0.
    """
    if sampling.temperature == 0:
        return jax.nn.one_hot(jnp.argmax(logits_BV, axis=-1), logits_BV.shape[-1], dtype=logits_BV.dtype)
    return jax.nn.softmax(keep_likely(logits_BV / sampling.temperature, sampling), axis=-1)


def penalize(logits_BV: jax.Array, seen_BV: jax.Array, penalty: float) -> jax.Array:
    """Return logits with those of seen tokens made less likely."""
    if penalty == 1:
        return logits_BV
    lowered_BV = jnp.where(logits_BV > 0, logits_BV / penalty, logits_BV * penalty)
    return jnp.where(seen_BV, lowered_BV, logits_BV)


def keep_likely(logits_BV: jax.Array, sampling: SamplingConfig) -> jax.Array:
    """Return logits with all that top-k, top-p and min-p leave out at -inf; the likeliest token always
    stays.
    """
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
