"""Speculative decoding: tokens are proposed, the model scores them all in one call, and a draw says how many
stay, so that text is distributed as the model alone would have it (Leviathan et al. 2023, Chen et al. 2023).

Where proposals come from is in `proposers`. One that is not taken is rolled back by setting the cache's
length: what lies in later slots is seen by nobody until it is written over. Scores of K + 1 tokens in one
call may differ in their last bits from scores of single tokens, so tokens that tie to the last bits could
change places. One row. Legend: S slots, K proposed tokens, T = K + 1 scored ones, V vocabulary.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from llm_jax.base.errors import UserError
from llm_jax.config.decoding import SamplingConfig
from llm_jax.inference.decode import Begun, begin, draw
from llm_jax.inference.request import Generation, Layout
from llm_jax.inference.sampling import probabilities
from llm_jax.model.cache import KVCache
from llm_jax.model.checks import check_room
from llm_jax.model.decoder import hidden_states, logits


class Text(NamedTuple):
    """A left-padded prompt and what follows it, slot by slot as in the cache."""

    tokens: jax.Array  # [S] int32
    start: jax.Array  # [] int32, the first slot that is not padding
    length: jax.Array  # [] int32, how many slots are filled: at least two tokens, of which one was drawn


class Proposer(Protocol):
    """Guesses what follows a text. A value that can be hashed: a program is compiled for each."""

    @property
    def count(self) -> int:
        """K."""
        ...

    def begin(self, model: Any, tokens_BT: Any, start_B: Any, num_slots: int) -> Any:
        """Return what it remembers of a left-padded prompt [1, T].

        Args:
            model: its own `Layout`, None where it has none.
            tokens_BT: the prompt.
            start_B: its first slot that is not padding, [1].
            num_slots: S.
        """
        ...

    def propose(
        self, model: Any, memory: Any, text: Text, key: jax.Array
    ) -> tuple[jax.Array, jax.Array, Any]:
        """Return tokens that may follow, int32 [K]; the probabilities [K, V] that each was drawn with; and
        what to remember.

        Where it knows nothing, -1 and probabilities that are all 0.
        """
        ...


def chances(p_V: jax.Array, q_V: jax.Array, proposal: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return how likely a proposal is taken, and with which probabilities [V] another token is drawn if it is
    not.

    A proposal is taken with min(1, p / q), else the draw is from max(0, p - q), made to sum to 1: together
    that is p, whatever q is.

    Args:
        p_V: the model's probabilities.
        q_V: those that the proposal was drawn with; all 0 if there is none.
        proposal: an id, or -1.
    """
    p, q = p_V[proposal], q_V[proposal]
    taken = jnp.where(proposal >= 0, jnp.minimum(1, p / jnp.where(q > 0, q, 1)), 0)
    left_V = jnp.maximum(p_V - q_V, 0)
    left = left_V.sum()
    # Nothing is left where p = q: then every proposal is taken, but for rounding.
    return taken, jnp.where(left > 0, left_V / jnp.where(left > 0, left, 1), p_V)


def decide(
    key: jax.Array, p_TV: jax.Array, q_KV: jax.Array, proposed_K: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Return the tokens that stay, int32 [T], and how many of the proposals are among them, A: the first A +
    1 of T count, the last of which was drawn in place of a proposal, or after them all.

    Args:
        key: for this call alone.
        p_TV: the model's probabilities of each next token.
        q_KV: those that the proposals were drawn with.
        proposed_K: ids, or -1 where there is none.
    """
    take_key, draw_key = jax.random.split(key)
    proposed_T = jnp.append(proposed_K, -1)  # after all of them comes a token that nobody proposed
    q_TV = jnp.concatenate([q_KV, jnp.zeros_like(q_KV[:1])])
    chance_T, instead_TV = jax.vmap(chances)(p_TV, q_TV, proposed_T)
    taken_T = jax.random.uniform(take_key, chance_T.shape) < chance_T
    accepted = jnp.argmin(taken_T)  # the first that is not taken
    last = jax.random.categorical(draw_key, jnp.log(instead_TV[accepted]))
    return proposed_T.at[accepted].set(last.astype(jnp.int32)), accepted


class Speculating(NamedTuple):
    """Where a row stands after a call of the model."""

    key: jax.Array  # the row's
    text: Text
    call: jax.Array  # [] int32, calls so far
    cache: KVCache  # of all tokens but the last; its length is not kept up
    memory: Any  # the proposer's


@partial(jax.jit, static_argnums=(0, 1))
def first_token(
    sampling: SamplingConfig, proposer: Proposer, model: Any, begun: Begun
) -> tuple[jax.Array, Speculating]:
    """Draw the first token after a prompt, int32 [1], as ordinary decoding does; and the state after it.

    Args:
        sampling: static.
        proposer: static.
        model: the proposer's own, if it has one.
        begun: one row.
    """
    drawn, drawing = draw(begun.rows.keys, begun.drawing, begun.logits, sampling)
    width, num_slots = begun.tokens.shape[1], begun.cache.num_slots
    tokens_S = jnp.zeros(num_slots, jnp.int32).at[:width].set(begun.tokens[0]).at[width].set(drawn.tokens[0])
    text = Text(tokens_S, begun.rows.start[0], jnp.int32(width + 1))
    memory = proposer.begin(model, begun.tokens, begun.rows.start, num_slots)
    return drawn.tokens, Speculating(begun.rows.keys[0], text, drawing.step, begun.cache, memory)


@partial(jax.jit, static_argnums=(1, 2), donate_argnums=4)
def speculate(
    layout: Layout, sampling: SamplingConfig, proposer: Proposer, model: Any, state: Speculating
) -> tuple[jax.Array, jax.Array, Speculating]:
    """Call the model once: tokens int32 [T] of which the first A + 1 count, A, and the next state.

    Args:
        layout: the model.
        sampling: static.
        proposer: static.
        model: the proposer's own, if it has one.
        state: donated.
    """
    key, text, call, cache, memory = state
    propose_key, decide_key = jax.random.split(jax.random.fold_in(key, call))
    proposed_K, q_KV, memory = proposer.propose(model, memory, text, propose_key)
    fed_T = jnp.append(text.tokens[text.length - 1], jnp.maximum(proposed_K, 0))
    hidden_BTD, cache, _ = hidden_states(
        layout.params,
        layout.config,
        fed_T[None],
        start_B=text.start[None],
        cache=cache._replace(length=text.length - 1),
    )
    assert cache is not None
    p_TV = probabilities(logits(layout.params, layout.config, hidden_BTD[0]), sampling)
    new_T, accepted = decide(decide_key, p_TV, q_KV, proposed_K)
    tokens_S = jax.lax.dynamic_update_slice_in_dim(text.tokens, new_T, text.length, axis=0)
    text = text._replace(tokens=tokens_S, length=text.length + accepted + 1)
    return new_T, accepted, Speculating(key, text, call + 1, cache, memory)


def speculate_tokens(
    layout: Layout, prompt: Sequence[int], request: Generation, proposer: Proposer, model: Any = None
) -> Iterator[np.ndarray]:
    """Give the tokens of each call of the model, int32 [1 to K + 1]; `max_new_tokens` of them together.

    Args:
        layout: the model.
        prompt: token ids, not empty.
        request: how many tokens, and how each is drawn; the caller may stop earlier.
        proposer: where proposals come from.
        model: the proposer's own `Layout`, if it has one.

    Raises:
        UserError: a repetition penalty, which would make the tokens of a call depend on one another, or a
            prompt that leaves no room for all tokens and a last proposal.
    """
    sampling, room = request.sampling, request.max_new_tokens + proposer.count
    if sampling.repetition_penalty != 1:
        raise UserError(
            f"repetition_penalty ({sampling.repetition_penalty}) must be 1 with speculation: tokens are "
            "scored before it is known which of them stay"
        )
    check_room(len(prompt), room, layout.config, "max_new_tokens and a proposal")
    first_B, state = first_token(sampling, proposer, model, begin(layout, [prompt], request, room))

    def calls(state: Speculating, new_T: np.ndarray) -> Iterator[np.ndarray]:
        left = request.max_new_tokens
        while left > 0:
            yield new_T[:left]
            left -= len(new_T)
            if left > 0:
                new, accepted, state = speculate(layout, sampling, proposer, model, state)
                new_T = np.asarray(new)[: int(accepted) + 1]

    return calls(state, np.asarray(first_B))
