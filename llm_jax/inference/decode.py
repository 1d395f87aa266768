"""Generation: prefill, cached steps, and sliding past the context as the torch tutorial does.

Prompts of different lengths share a batch by left padding. While every row fits the context, each step feeds
one token through the cache, several steps in one call. When a row is full, positions would have to move, so
from there each step recomputes the last context_length tokens. Lengths are padded to powers of two, so a
model compiles a handful of times, whatever it is asked.
Legend: B batch, T tokens, V vocabulary, K tokens of a call.
"""

import time
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from llm_jax.base.buckets import power_of_two
from llm_jax.base.errors import UserError
from llm_jax.config.decoding import SamplingConfig
from llm_jax.config.model import ModelConfig
from llm_jax.inference.request import Generation, Layout
from llm_jax.inference.sampling import log_probs, sample
from llm_jax.model.cache import KVCache, fill_cache
from llm_jax.model.checks import check_tokens
from llm_jax.model.decoder import hidden_states, logits
from llm_jax.model.dropout import KEY_KIND

MOST_A_CALL = 32  # tokens of each row
_SECONDS_A_CALL = 0.05  # calls grow while they are shorter: a reader sees no bursts


@partial(jax.jit, static_argnums=3)
def prefill(
    layout: Layout, tokens_BT: jax.Array, start_B: jax.Array, num_slots: int
) -> tuple[jax.Array, KVCache]:
    """Return logits after the last token of left-padded prompts, [B, V], and a cache of `num_slots` with the
    prompts in it.
    """
    params, config = layout.params, layout.config
    hidden_BTD, _, seen = hidden_states(params, config, tokens_BT, start_B=start_B)
    cache = fill_cache(seen.blocks.keys, seen.blocks.values, num_slots)
    return logits(params, config, hidden_BTD[:, -1]), cache


@jax.jit
def window_logits(layout: Layout, tokens_BT: jax.Array, start_B: jax.Array) -> jax.Array:
    """Return logits after the last token of left-padded windows, [B, V], computed without a cache."""
    hidden_BTD, _, _ = hidden_states(layout.params, layout.config, tokens_BT, start_B=start_B)
    return logits(layout.params, layout.config, hidden_BTD[:, -1])


class Sampled(NamedTuple):
    """The next token of each row, and what the model gave it."""

    tokens: Any  # [..., B] int32
    log_probs: Any  # [..., B], nats, before penalty, temperature and filters


class Rows(NamedTuple):
    """What stays of a batch of rows while tokens come."""

    keys: jax.Array  # [B], one a row
    start: Any  # [B] int32, each row's first slot that is not padding


class Drawing(NamedTuple):
    """What the next draw of each row depends on, beside its key and logits."""

    seen: Any  # [B, V] bool, what the repetition penalty counts
    step: Any  # [] int32, tokens drawn so far


@partial(jax.jit, static_argnums=3)
def draw(
    keys_B: jax.Array, drawing: Drawing, logits_BV: jax.Array, sampling: SamplingConfig
) -> tuple[Sampled, Drawing]:
    """Draw the next token of each row, by the row's own key."""
    seen_BV, step = drawing
    tokens_B = sample(jax.vmap(jax.random.fold_in, (0, None))(keys_B, step), logits_BV, seen_BV, sampling)
    seen_BV = seen_BV.at[jnp.arange(len(tokens_B)), tokens_B].set(True)
    return Sampled(tokens_B, log_probs(logits_BV, tokens_B)), Drawing(seen_BV, step + 1)


class Begun(NamedTuple):
    """Left-padded prompts in a cache, before the first draw."""

    tokens: np.ndarray  # [B, T] int32
    rows: Rows
    logits: jax.Array  # [B, V], of the first new token
    drawing: Drawing
    cache: KVCache


def begin(layout: Layout, prompts: Sequence[Sequence[int]], request: Generation, room: int) -> Begun:
    """Pad prompts, make each row's key and prefill a cache: how all decoding begins.

    Args:
        layout: the model.
        prompts: token ids, one list a row, not empty; of a longer text the last context_length are seen.
        request: whose seed and sampling count.
        room: how many tokens may come after a prompt.

    Raises:
        UserError, DataError: no prompt, an empty one, or an id outside the vocabulary.
    """
    config = layout.config
    tokens_BT, start_B = _pad_left(prompts, config.context_length, config)
    num_slots = tokens_BT.shape[1] + min(config.context_length, power_of_two(room))
    seen_BV = np.zeros((len(prompts), config.vocab_size), bool)
    if request.sampling.repetition_penalty != 1:
        for row, prompt in enumerate(prompts):
            seen_BV[row, np.asarray(prompt[-config.context_length :])] = True
    logits_BV, cache = prefill(layout, tokens_BT, start_B, num_slots)
    rows = Rows(_row_keys(request.seed, prompts), start_B)
    return Begun(tokens_BT, rows, logits_BV, Drawing(seen_BV, np.int32(0)), cache)


class Decoding(NamedTuple):
    """Where a batch of rows stands after a token."""

    drawn: Sampled  # [B], the last token of each row, not in the cache yet
    drawing: Drawing
    cache: KVCache


@partial(jax.jit, static_argnums=1, donate_argnums=3)
def decode_steps(
    layout: Layout, sampling: SamplingConfig, rows: Rows, state: Decoding, count: jax.Array
) -> tuple[Sampled, Decoding]:
    """Draw `count` more tokens of each row, at most MOST_A_CALL, through the cache.

    Returns:
        [MOST_A_CALL, B], of which the first `count` are filled, and the next state; `state` is donated.
    """
    params, config = layout.params, layout.config

    def one(index: jax.Array, so_far: tuple[Sampled, Decoding]) -> tuple[Sampled, Decoding]:
        all_KB, (last, drawing, cache) = so_far
        tokens_BT = last.tokens[:, None]
        hidden_BTD, cache, _ = hidden_states(params, config, tokens_BT, start_B=rows.start, cache=cache)
        assert cache is not None
        drawn, drawing = draw(rows.keys, drawing, logits(params, config, hidden_BTD[:, -1]), sampling)
        all_KB = jax.tree.map(lambda so_many, new: so_many.at[index].set(new), all_KB, drawn)
        return all_KB, Decoding(drawn, drawing, cache)

    none_KB = jax.tree.map(lambda last: jnp.zeros((MOST_A_CALL, *last.shape), last.dtype), state.drawn)
    return jax.lax.fori_loop(0, count, one, (none_KB, state))


def generate_tokens(
    layout: Layout, prompts: Sequence[Sequence[int]], request: Generation
) -> Iterator[np.ndarray]:
    """Yield the tokens alone of `generate_rows`, int32 [B]."""
    return (drawn.tokens for drawn in generate_rows(layout, prompts, request))


def generate_rows(
    layout: Layout, prompts: Sequence[Sequence[int]], request: Generation, start_ids: Sequence[int] = ()
) -> Iterator[Sampled]:
    """Yield the next token of every row with its log-probability, numpy's [B], `max_new_tokens` times.

    A row depends on the seed, its prompt, and how many rows before it have the same prompt, which makes
    samples differ; on nothing else of its neighbours. So different prompts give what each gives alone.

    Args:
        layout: the model.
        prompts: token ids, one list a row, not empty; of a longer text the last context_length are seen.
        request: how many tokens, and how each is drawn; the caller may stop earlier.
        start_ids: a prompt that begins with them keeps them before the last tokens that are seen.
    """
    left, context = request.max_new_tokens, layout.config.context_length
    if left == 0:
        return
    begins_B = np.array([list(prompt[: len(start_ids)]) == list(start_ids) for prompt in prompts])
    prompts = [
        [*start_ids, *prompt[len(start_ids) - context :]] if begins and len(prompt) > context else prompt
        for begins, prompt in zip(begins_B, prompts, strict=True)
    ]
    begun = begin(layout, prompts, request, left)
    tokens_BT, rows, sampling = begun.tokens, begun.rows, request.sampling
    drawn, drawing = draw(rows.keys, begun.drawing, begun.logits, sampling)
    fitting = min(left, context + 1 + int(rows.start.min()) - tokens_BT.shape[1])
    first = Decoding(drawn, drawing, begun.cache)
    for new_KB, state in _cached(layout, sampling, rows, first, fitting):
        tokens_BT, drawing = np.concatenate([tokens_BT, new_KB.tokens.T], axis=1), state.drawing
        yield from (Sampled(tokens, scores) for tokens, scores in zip(*new_KB, strict=True))
    past = _Past(tokens_BT, rows, begins_B, start_ids)
    yield from _sliding(layout, sampling, drawing, past, left - fitting)


def _cached(
    layout: Layout, sampling: SamplingConfig, rows: Rows, state: Decoding, count: int
) -> Iterator[tuple[Sampled, Decoding]]:
    """Tokens [K, B] of each call through the cache and the state after it, `count` tokens in all; the one
    that was drawn already comes first.
    """
    a_call = 1
    yield Sampled(*(np.array(part)[None] for part in state.drawn)), state  # copies: the state is donated
    count -= 1
    while count:
        number, began = min(count, a_call), time.perf_counter()
        all_KB, state = decode_steps(layout, sampling, rows, state, np.int32(number))
        new_KB = Sampled(*(np.asarray(part)[:number] for part in all_KB))
        if time.perf_counter() - began < _SECONDS_A_CALL:
            a_call = min(2 * a_call, MOST_A_CALL)
        count -= number
        yield new_KB, state


class _Past(NamedTuple):
    """All that rows have so far."""

    tokens: np.ndarray  # [B, T]
    rows: Rows
    begins: np.ndarray  # [B] bool, which rows begin with the start ids
    start_ids: Sequence[int]


def _sliding(
    layout: Layout, sampling: SamplingConfig, drawing: Drawing, past: _Past, count: int
) -> Iterator[Sampled]:
    """Tokens [B] after the longest row is full: each from the last context_length ones, computed anew."""
    tokens_BT, (keys_B, start_B), begins_B, start_ids = past
    for _ in range(count):
        dropped = tokens_BT.shape[1] - layout.config.context_length
        window_BT = tokens_BT[:, dropped:].copy()
        window_start_B = np.maximum(start_B - dropped, 0).astype(np.int32)
        window_BT[begins_B & (window_start_B == 0), : len(start_ids)] = start_ids
        logits_BV = window_logits(layout, window_BT, window_start_B)
        drawn, drawing = draw(keys_B, drawing, logits_BV, sampling)
        new_B = Sampled(*map(np.asarray, drawn))
        tokens_BT = np.concatenate([tokens_BT, new_B.tokens[:, None]], axis=1)
        yield new_B


def _pad_left(
    prompts: Sequence[Sequence[int]], longest: int, config: ModelConfig
) -> tuple[np.ndarray, np.ndarray]:
    """Prompts as int32 [B, T] with zeros on the left, T a power of two or `longest`, and each row's first
    real slot [B].
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


def _row_keys(seed: int, prompts: Sequence[Sequence[int]]) -> jax.Array:
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
