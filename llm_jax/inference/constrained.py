"""Constrained decoding: each token is drawn from those that a mask allows, one mask a row and step.

Masks come from the host and depend on the token before, so a step is one token: the model scores the next
while the host makes its mask. What a mask means is in `grammar`. Legend: B batch, T tokens, V vocabulary.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Protocol

import jax
import jax.numpy as jnp
import numpy as np

from llm_jax.base.errors import UserError
from llm_jax.config.decoding import SamplingConfig
from llm_jax.inference.decode import Begun, Drawing, Sampled, begin, draw
from llm_jax.inference.request import Generation, Layout
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
        """Return which tokens may come next, bool [V]."""
        ...

    def take(self, token: int) -> None:
        """Go on by a token that was allowed."""
        ...


@partial(jax.jit, static_argnums=4)
def draw_allowed(
    keys_B: jax.Array,
    drawing: Drawing,
    logits_BV: jax.Array,
    allowed_BV: jax.Array,
    sampling: SamplingConfig,
) -> tuple[Sampled, Drawing]:
    """Draw as `draw` does, among the allowed tokens: filters see no others, log-probabilities are those
    without.
    """
    drawn, drawing = draw(keys_B, drawing, jnp.where(allowed_BV, logits_BV, -jnp.inf), sampling)
    return drawn._replace(log_probs=log_probs(logits_BV, drawn.tokens)), drawing


@partial(jax.jit, donate_argnums=3)
def next_logits(
    layout: Layout, tokens_B: jax.Array, start_B: jax.Array, cache: KVCache
) -> tuple[jax.Array, KVCache]:
    """Return logits after one more token of each row, [B, V], and the cache with it, which is donated."""
    params, config = layout.params, layout.config
    hidden_BTD, written, _ = hidden_states(params, config, tokens_B[:, None], start_B=start_B, cache=cache)
    assert written is not None
    return logits(params, config, hidden_BTD[:, -1]), written


def constrained_tokens(
    layout: Layout, prompts: Sequence[Sequence[int]], sources: Sequence[MaskSource], request: Generation
) -> Iterator[Sampled]:
    """Give the next token of every row with its log-probability, numpy's [B], ENDED for rows that have ended,
    until it is that for all.

    Args:
        layout: the model.
        prompts: token ids, one list a row, not empty.
        sources: one a row, at their beginnings.
        request: at most how many tokens, and how each is drawn; what is not complete by then is cut off.

    Raises:
        UserError: a prompt leaves no room in the context; then, while tokens come, a row that no token of the
            vocabulary can go on with.
    """
    longest, most = max(map(len, prompts), default=0), request.max_new_tokens
    check_room(longest, most, layout.config, "max_new_tokens of a constraint")
    return _steps(layout, begin(layout, prompts, request, most), sources, request)


def _steps(
    layout: Layout, begun: Begun, sources: Sequence[MaskSource], request: Generation
) -> Iterator[Sampled]:
    logits_BV, drawing, cache = begun.logits, begun.drawing, begun.cache
    for drawn in range(request.max_new_tokens):
        live_B = np.array([not source.finished for source in sources])
        allowed_BV = np.stack([_allowed(source, layout.config.vocab_size) for source in sources])
        new, drawing = draw_allowed(begun.rows.keys, drawing, logits_BV, allowed_BV, request.sampling)
        new_B = np.asarray(new.tokens)
        for source, token in zip(sources, new_B, strict=True):
            if not source.finished:
                source.take(int(token))
        over = all(source.finished for source in sources)
        if not over and drawn + 1 < request.max_new_tokens:
            logits_BV, cache = next_logits(layout, new.tokens, begun.rows.start, cache)
        yield Sampled(np.where(live_B, new_B, ENDED), np.asarray(new.log_probs))
        if over:
            yield Sampled(np.full_like(new_B, ENDED), np.zeros(len(new_B)))
            return


def _allowed(source: MaskSource, vocab_size: int) -> np.ndarray:
    if source.finished:
        return np.ones(vocab_size, bool)
    allowed_V = source.allowed()
    if not allowed_V.any():
        raise UserError("the constraint asks for text that no token of this vocabulary can begin")
    return allowed_V
