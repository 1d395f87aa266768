"""Generation: prefill, cached steps, and sliding past the context as the torch tutorial does.

Prompts of different lengths share a batch by left padding. While every row fits the context, each step feeds
one token through the cache. When a row is full, positions would have to move, so from there each step
recomputes the last context_length tokens. Lengths are padded to powers of two, so a model compiles a handful
of times, whatever it is asked.
Legend: B batch, T tokens, V vocabulary.
"""

from collections.abc import Iterator, Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from llm_jax.config import ModelConfig, SamplingConfig
from llm_jax.errors import UserError
from llm_jax.inference.sampling import sample
from llm_jax.model.cache import KVCache, init_cache
from llm_jax.model.checks import check_tokens
from llm_jax.model.decoder import hidden_states, logits
from llm_jax.tree import Tree


@partial(jax.jit, static_argnums=(1, 4))
def prefill(
    params: Tree, config: ModelConfig, tokens_BT: jax.Array, start_B: jax.Array, num_slots: int
) -> tuple[jax.Array, KVCache]:
    """Logits after the last token of left-padded prompts, [B, V], and a cache of `num_slots` with the prompts
    in it.
    """
    empty = init_cache(config, tokens_BT.shape[0], num_slots)
    hidden_BTD, cache, _ = hidden_states(params, config, tokens_BT, start_B=start_B, cache=empty)
    assert cache is not None
    return logits(params, config, hidden_BTD[:, -1]), cache


@partial(jax.jit, static_argnums=1, donate_argnums=4)
def decode_step(
    params: Tree, config: ModelConfig, tokens_B: jax.Array, start_B: jax.Array, cache: KVCache
) -> tuple[jax.Array, KVCache]:
    """Logits after one more token a row, [B, V], and the cache with it; the cache is donated."""
    hidden_BTD, after, _ = hidden_states(params, config, tokens_B[:, None], start_B=start_B, cache=cache)
    assert after is not None
    return logits(params, config, hidden_BTD[:, -1]), after


@partial(jax.jit, static_argnums=1)
def window_logits(params: Tree, config: ModelConfig, tokens_BT: jax.Array, start_B: jax.Array) -> jax.Array:
    """Logits after the last token of left-padded windows, [B, V], computed without a cache."""
    hidden_BTD, _, _ = hidden_states(params, config, tokens_BT, start_B=start_B)
    return logits(params, config, hidden_BTD[:, -1])


@partial(jax.jit, static_argnums=4)
def _draw(
    key: jax.Array, logits_BV: jax.Array, seen_BV: jax.Array, step: jax.Array, sampling: SamplingConfig
) -> tuple[jax.Array, jax.Array]:
    rows_B = jnp.arange(logits_BV.shape[0])
    keys_B = jax.vmap(lambda row: jax.random.fold_in(jax.random.fold_in(key, step), row))(rows_B)
    tokens_B = sample(keys_B, logits_BV, seen_BV, sampling)
    return tokens_B, seen_BV.at[rows_B, tokens_B].set(True)


def generate_tokens(
    params: Tree,
    config: ModelConfig,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    sampling: SamplingConfig,
    seed: int,
) -> Iterator[np.ndarray]:
    """Yields the next token of every row, int32 [B], `max_new_tokens` times.

    Args:
        params: the model's parameters.
        config: its shape.
        prompts: token ids, one list a row, not empty; only the last context_length of each are seen.
        max_new_tokens: how many to draw; the caller may stop earlier.
        sampling: how each is drawn.
        seed: the same seed, prompts and settings give the same tokens.
    """
    context = config.context_length
    tokens_BT, start_B = pad_left(prompts, context, config)
    seen_BV = (
        _seen(prompts, config)
        if sampling.repetition_penalty != 1
        else np.zeros((len(prompts), config.vocab_size), bool)
    )
    num_slots = tokens_BT.shape[1] + min(context, _power_of_two(max_new_tokens))
    key = jax.random.key(seed)
    next_logits_BV, cache = prefill(params, config, tokens_BT, start_B, num_slots)
    for step in range(max_new_tokens):
        next_B, seen_BV = _draw(key, next_logits_BV, seen_BV, np.int32(step), sampling)
        token_B = np.asarray(next_B)
        yield token_B
        if step + 1 == max_new_tokens:
            return
        tokens_BT = np.concatenate([tokens_BT, token_B[:, None]], axis=1)
        if tokens_BT.shape[1] - start_B.min() <= context:
            next_logits_BV, cache = decode_step(params, config, next_B, start_B, cache)
        else:
            window_BT, window_start_B = _last_window(tokens_BT, start_B, context)
            next_logits_BV = window_logits(params, config, window_BT, window_start_B)


def pad_left(
    prompts: Sequence[Sequence[int]], longest: int, config: ModelConfig
) -> tuple[np.ndarray, np.ndarray]:
    """Prompts as int32 [B, T] with zeros on the left, T a power of two or `longest`, and each row's first
    real slot [B].

    Raises:
        UserError, DataError: no prompt, an empty one, or an id outside the vocabulary.
    """
    if not prompts or not all(len(prompt) for prompt in prompts):
        raise UserError("a prompt must have at least one token, got an empty one")
    kept = [np.asarray(prompt[-longest:], np.int32) for prompt in prompts]
    for prompt in kept:
        check_tokens(prompt, config, "the prompt")
    width = min(longest, _power_of_two(max(len(prompt) for prompt in kept)))
    start_B = np.array([width - len(prompt) for prompt in kept], np.int32)
    return np.stack([np.pad(prompt, (width - len(prompt), 0)) for prompt in kept]), start_B


def _last_window(tokens_BT: np.ndarray, start_B: np.ndarray, context: int) -> tuple[np.ndarray, np.ndarray]:
    dropped = tokens_BT.shape[1] - context
    return tokens_BT[:, dropped:], np.maximum(start_B - dropped, 0).astype(np.int32)


def _seen(prompts: Sequence[Sequence[int]], config: ModelConfig) -> np.ndarray:
    seen_BV = np.zeros((len(prompts), config.vocab_size), bool)
    for row, prompt in enumerate(prompts):
        seen_BV[row, np.asarray(prompt[-config.context_length :])] = True
    return seen_BV


def _power_of_two(number: int) -> int:
    return 1 << max(0, number - 1).bit_length()
