"""Constrained decoding: each token is drawn from those that a mask allows, one mask a row and step.

Masks come from the host and depend on the token before, so a step is one token: the model scores the next
while the host makes its mask. What a mask means is in `grammar`. Legend: B batch, T tokens, V vocabulary.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Protocol

import jax
import jax.numpy as jnp
import numpy as np

from llm_jax.base.buckets import power_of_two
from llm_jax.base.errors import UserError
from llm_jax.base.tree import Tree
from llm_jax.config.decoding import SamplingConfig
from llm_jax.config.model import ModelConfig
from llm_jax.inference.decode import Drawn, draw, pad_left, prefill, row_keys, seen_in
from llm_jax.inference.sampling import log_probs
from llm_jax.model.cache import KVCache
from llm_jax.model.checks import check_room
from llm_jax.model.decoder import hidden_states, logits

ENDED = -1  # in the place of a token, for rows that have ended


class MaskSource(Protocol):
    """Follows one row, and says what may come next."""

    @property
    def finished(self) -> bool:
        """Whether the text has ended: nothing more may come, or an end token came."""
        ...

    def allowed(self) -> np.ndarray:
        """Which tokens may come next, bool [V]."""
        ...

    def take(self, token: int) -> None:
        """Goes on by a token that was allowed."""
        ...


@partial(jax.jit, static_argnums=5)
def draw_allowed(
    keys_B: jax.Array,
    logits_BV: jax.Array,
    allowed_BV: jax.Array,
    seen_BV: jax.Array,
    step: jax.Array,
    sampling: SamplingConfig,
) -> tuple[Drawn, jax.Array, jax.Array]:
    """As `draw`, among the allowed tokens: filters see no others, log-probabilities are those without."""
    masked_BV = jnp.where(allowed_BV, logits_BV, -jnp.inf)
    drawn, seen_BV, step = draw(keys_B, masked_BV, seen_BV, step, sampling)
    return drawn._replace(log_probs=log_probs(logits_BV, drawn.tokens)), seen_BV, step


@partial(jax.jit, static_argnums=1, donate_argnums=4)
def next_logits(
    params: Tree, config: ModelConfig, tokens_B: jax.Array, start_B: jax.Array, cache: KVCache
) -> tuple[jax.Array, KVCache]:
    """Logits after one more token of each row, [B, V], and the cache with it, which is donated."""
    hidden_BTD, written, _ = hidden_states(params, config, tokens_B[:, None], start_B=start_B, cache=cache)
    assert written is not None
    return logits(params, config, hidden_BTD[:, -1]), written


def constrained_tokens(
    params: Tree,
    config: ModelConfig,
    prompts: Sequence[Sequence[int]],
    sources: Sequence[MaskSource],
    *,
    max_new_tokens: int,
    sampling: SamplingConfig,
    seed: int,
) -> Iterator[Drawn]:
    """The next token of every row with its log-probability, numpy's [B], ENDED for rows that have ended,
    until it is that for all.

    Args:
        params: the model's parameters, as `lay_out` lays them out.
        config: its shape.
        prompts: token ids, one list a row, not empty.
        sources: one a row, at their beginnings.
        max_new_tokens: at most so many; what is not complete by then is cut off.
        sampling: how each is drawn.
        seed: the same seed, prompts, masks and settings give the same tokens.

    Raises:
        UserError: a prompt leaves no room in the context; then, while tokens come, a row that no token of the
            vocabulary can go on with.
    """
    check_room(max(map(len, prompts), default=0), max_new_tokens, config, "max_new_tokens of a constraint")
    tokens_BT, start_B = pad_left(prompts, config.context_length, config)
    num_slots = tokens_BT.shape[1] + power_of_two(max_new_tokens)
    config = dataclasses.replace(config, tied_head=False)  # as the parameters are laid out
    begun = prefill(params, config, tokens_BT, start_B, num_slots)
    state = (row_keys(seed, prompts), seen_in(prompts, config), *begun)
    return _steps(params, config, start_B, state, sources, max_new_tokens, sampling)


def _steps(
    params: Tree,
    config: ModelConfig,
    start_B: np.ndarray,
    state: tuple[jax.Array, np.ndarray | jax.Array, jax.Array, KVCache],
    sources: Sequence[MaskSource],
    max_new_tokens: int,
    sampling: SamplingConfig,
) -> Iterator[Drawn]:
    keys_B, seen_BV, logits_BV, cache = state
    step = jnp.int32(0)
    for drawn in range(max_new_tokens):
        live_B = np.array([not source.finished for source in sources])
        allowed_BV = np.stack([_allowed(source, config.vocab_size) for source in sources])
        new, seen_BV, step = draw_allowed(keys_B, logits_BV, allowed_BV, seen_BV, step, sampling)
        new_B = np.asarray(new.tokens)
        for source, token in zip(sources, new_B, strict=True):
            if not source.finished:
                source.take(int(token))
        over = all(source.finished for source in sources)
        if not over and drawn + 1 < max_new_tokens:
            logits_BV, cache = next_logits(params, config, new.tokens, start_B, cache)
        yield Drawn(np.where(live_B, new_B, ENDED), np.asarray(new.log_probs))
        if over:
            yield Drawn(np.full_like(new_B, ENDED), np.zeros(len(new_B)))
            return


def _allowed(source: MaskSource, vocab_size: int) -> np.ndarray:
    if source.finished:
        return np.ones(vocab_size, bool)
    allowed_V = source.allowed()
    if not allowed_V.any():
        raise UserError("the constraint asks for text that no token of this vocabulary can begin")
    return allowed_V
