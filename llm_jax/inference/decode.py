"""Generation: prefill, cached steps, and sliding past the context as the torch tutorial does.

Prompts of different lengths share a batch by left padding. While every row fits the context, each step feeds
one token through the cache, several steps in one call. When a row is full, positions would have to move, so
from there each step recomputes the last context_length tokens. Lengths are padded to powers of two, so a
model compiles a handful of times, whatever it is asked.
Legend: B batch, T tokens, V vocabulary, K tokens of a call.
"""

import dataclasses
import time
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from llm_jax.base.buckets import power_of_two
from llm_jax.base.errors import UserError
from llm_jax.base.tree import Tree
from llm_jax.config.decoding import SamplingConfig
from llm_jax.config.model import ModelConfig
from llm_jax.inference.sampling import log_probs, sample
from llm_jax.model.cache import KVCache, fill_cache
from llm_jax.model.checks import check_tokens
from llm_jax.model.decoder import hidden_states, logits, unstack_blocks
from llm_jax.model.dropout import KEY_KIND

MOST_A_CALL = 32  # tokens of each row
_SECONDS_A_CALL = 0.05  # calls grow while they are shorter: a reader sees no bursts


@jax.jit
def lay_out(params: Tree) -> Tree:
    """Parameters as decoding reads them: each layer's are arrays of their own, which out of a stack each
    token would copy, and a tied head is a kernel [D, V] of its own, which each token would transpose.
    """
    if "head" not in params:
        params = params | {"head": {"kernel": params["token_embedding"]["embedding"].T}}
    return unstack_blocks(params)


@partial(jax.jit, static_argnums=(1, 4))
def prefill(
    params: Tree, config: ModelConfig, tokens_BT: jax.Array, start_B: jax.Array, num_slots: int
) -> tuple[jax.Array, KVCache]:
    """Logits after the last token of left-padded prompts, [B, V], and a cache of `num_slots` with the prompts
    in it.
    """
    hidden_BTD, _, seen = hidden_states(params, config, tokens_BT, start_B=start_B)
    cache = fill_cache(seen.blocks.keys, seen.blocks.values, num_slots)
    return logits(params, config, hidden_BTD[:, -1]), cache


@partial(jax.jit, static_argnums=1)
def window_logits(params: Tree, config: ModelConfig, tokens_BT: jax.Array, start_B: jax.Array) -> jax.Array:
    """Logits after the last token of left-padded windows, [B, V], computed without a cache."""
    hidden_BTD, _, _ = hidden_states(params, config, tokens_BT, start_B=start_B)
    return logits(params, config, hidden_BTD[:, -1])


class Drawn(NamedTuple):
    """The next token of each row, and what the model gave it."""

    tokens: Any  # [..., B] int32
    log_probs: Any  # [..., B], nats, before penalty, temperature and filters


@partial(jax.jit, static_argnums=4)
def draw(
    keys_B: jax.Array, logits_BV: jax.Array, seen_BV: jax.Array, step: jax.Array, sampling: SamplingConfig
) -> tuple[Drawn, jax.Array, jax.Array]:
    """The next token of each row, by the row's own key; what each row has seen with it; and the next step."""
    tokens_B = sample(jax.vmap(jax.random.fold_in, (0, None))(keys_B, step), logits_BV, seen_BV, sampling)
    seen_BV = seen_BV.at[jnp.arange(len(tokens_B)), tokens_B].set(True)
    return Drawn(tokens_B, log_probs(logits_BV, tokens_B)), seen_BV, step + 1


class Decoding(NamedTuple):
    """Where a batch of rows stands after a token."""

    drawn: Drawn  # [B], the last token of each row, not in the cache yet
    seen: jax.Array  # [B, V] bool, what the repetition penalty counts
    step: jax.Array  # [] int32, tokens drawn so far
    cache: KVCache


@partial(jax.jit, static_argnums=(1, 2), donate_argnums=5)
def decode_steps(
    params: Tree,
    config: ModelConfig,
    sampling: SamplingConfig,
    keys_B: jax.Array,
    start_B: jax.Array,
    state: Decoding,
    count: jax.Array,
) -> tuple[Drawn, Decoding]:
    """Draws `count` more tokens of each row, at most MOST_A_CALL, through the cache.

    Returns:
        [MOST_A_CALL, B], of which the first `count` are filled, and the next state; `state` is donated.
    """

    def one(index: jax.Array, so_far: tuple[Drawn, Decoding]) -> tuple[Drawn, Decoding]:
        all_KB, (last, seen_BV, step, cache) = so_far
        tokens_BT = last.tokens[:, None]
        hidden_BTD, cache, _ = hidden_states(params, config, tokens_BT, start_B=start_B, cache=cache)
        assert cache is not None
        drawn, *after = draw(keys_B, logits(params, config, hidden_BTD[:, -1]), seen_BV, step, sampling)
        all_KB = jax.tree.map(lambda so_many, new: so_many.at[index].set(new), all_KB, drawn)
        return all_KB, Decoding(drawn, *after, cache=cache)

    none_KB = jax.tree.map(lambda last: jnp.zeros((MOST_A_CALL, *last.shape), last.dtype), state.drawn)
    return jax.lax.fori_loop(0, count, one, (none_KB, state))


def generate_tokens(
    params: Tree,
    config: ModelConfig,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    sampling: SamplingConfig,
    seed: int,
) -> Iterator[np.ndarray]:
    """The tokens alone of `generate_rows`, int32 [B]."""
    rows = generate_rows(params, config, prompts, max_new_tokens=max_new_tokens, sampling=sampling, seed=seed)
    return (drawn.tokens for drawn in rows)


def generate_rows(
    params: Tree,
    config: ModelConfig,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    sampling: SamplingConfig,
    seed: int,
    start_ids: Sequence[int] = (),
) -> Iterator[Drawn]:
    """Yields the next token of every row with its log-probability, numpy's [B], `max_new_tokens` times.

    A row depends on the seed, its prompt, and how many rows before it have the same prompt, which makes
    samples differ; on nothing else of its neighbours. So different prompts give what each gives alone.

    Args:
        params: the model's parameters, which `lay_out` lays out once for many calls, and this does for one.
        config: its shape.
        prompts: token ids, one list a row, not empty; of a longer text the last context_length are seen.
        max_new_tokens: how many to draw; the caller may stop earlier.
        sampling: how each is drawn.
        seed: the same seed, prompts and settings give the same tokens.
        start_ids: a prompt that begins with them keeps them before the last tokens that are seen.
    """
    if max_new_tokens == 0:
        return
    context, keys_B = config.context_length, row_keys(seed, prompts)
    begins_B = np.array([list(prompt[: len(start_ids)]) == list(start_ids) for prompt in prompts])
    prompts = [
        [*start_ids, *prompt[len(start_ids) - context :]] if begins and len(prompt) > context else prompt
        for begins, prompt in zip(begins_B, prompts, strict=True)
    ]
    tokens_BT, start_B = pad_left(prompts, context, config)
    seen_BV = (
        seen_in(prompts, config)
        if sampling.repetition_penalty != 1
        else np.zeros((len(prompts), config.vocab_size), bool)
    )
    num_slots = tokens_BT.shape[1] + min(context, power_of_two(max_new_tokens))
    params = params if isinstance(params["blocks"], tuple) else lay_out(params)
    config = dataclasses.replace(config, tied_head=False)
    next_logits_BV, cache = prefill(params, config, tokens_BT, start_B, num_slots)
    state = Decoding(*draw(keys_B, next_logits_BV, seen_BV, np.int32(0), sampling), cache=cache)
    new_KB, drawn, a_call = _one_step(state.drawn), 1, 1
    while True:
        yield from (Drawn(tokens, scores) for tokens, scores in zip(*new_KB, strict=True))
        if drawn == max_new_tokens:
            return
        tokens_BT = np.concatenate([tokens_BT, new_KB.tokens.T], axis=1)
        if (room := context + start_B.min() + 1 - tokens_BT.shape[1]) > 0:
            count = min(room, max_new_tokens - drawn, a_call)
            began = time.perf_counter()
            all_KB, state = decode_steps(params, config, sampling, keys_B, start_B, state, np.int32(count))
            new_KB = Drawn(*(np.asarray(part)[:count] for part in all_KB))
            if time.perf_counter() - began < _SECONDS_A_CALL:
                a_call = min(2 * a_call, MOST_A_CALL)
        else:  # The longest row is full.
            window_BT, window_start_B = _last_window(tokens_BT, start_B, context)
            window_BT[begins_B & (window_start_B == 0), : len(start_ids)] = start_ids
            next_logits_BV = window_logits(params, config, window_BT, window_start_B)
            after = draw(keys_B, next_logits_BV, state.seen, state.step, sampling)
            state = Decoding(*after, cache=state.cache)
            new_KB = _one_step(state.drawn)
        drawn += len(new_KB.tokens)


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
    kept = [np.asarray(prompt[-longest:]) for prompt in prompts]
    for prompt in kept:
        check_tokens(prompt, config, "the prompt")
    width = min(longest, power_of_two(max(len(prompt) for prompt in kept)))
    start_B = np.array([width - len(prompt) for prompt in kept], np.int32)
    padded = [np.pad(prompt, (width - len(prompt), 0)) for prompt in kept]
    return np.stack(padded).astype(np.int32), start_B


def row_keys(seed: int, prompts: Sequence[Sequence[int]]) -> jax.Array:
    """One key a row, which depends on how many rows before it have the same prompt, [B]."""
    counts: dict[tuple[int, ...], int] = {}
    number_B = np.zeros(len(prompts), np.int32)
    for row, prompt in enumerate(map(tuple, prompts)):
        number_B[row] = counts.get(prompt, 0)
        counts[prompt] = number_B[row] + 1
    return _folded(jax.random.key(seed, impl=KEY_KIND), number_B)


@jax.jit
def _folded(key: jax.Array, number_B: np.ndarray) -> jax.Array:
    return jax.vmap(jax.random.fold_in, (None, 0))(key, number_B)


def _one_step(drawn: Drawn) -> Drawn:
    return Drawn(*(np.array(part)[None] for part in drawn))  # copies: the arrays are donated


def _last_window(tokens_BT: np.ndarray, start_B: np.ndarray, context: int) -> tuple[np.ndarray, np.ndarray]:
    dropped = tokens_BT.shape[1] - context
    return tokens_BT[:, dropped:].copy(), np.maximum(start_B - dropped, 0).astype(np.int32)


def seen_in(prompts: Sequence[Sequence[int]], config: ModelConfig) -> np.ndarray:
    """Which tokens each prompt has, bool [B, V]."""
    seen_BV = np.zeros((len(prompts), config.vocab_size), bool)
    for row, prompt in enumerate(prompts):
        seen_BV[row, np.asarray(prompt[-config.context_length :])] = True
    return seen_BV
