"""Where speculative decoding takes its proposals: from the text so far, or from a smaller model.

Legend: B batch (one row), T tokens, S slots, K proposed tokens, V vocabulary.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from llm_jax.config.decoding import SamplingConfig
from llm_jax.inference.decode import prefill
from llm_jax.inference.request import Layout
from llm_jax.inference.sampling import probabilities
from llm_jax.inference.speculative import Text
from llm_jax.model.cache import KVCache
from llm_jax.model.decoder import hidden_states, logits

_LONGEST_MATCH = 3  # tokens; a longer match is a better omen, but rarer


@dataclass(frozen=True)
class PromptLookup:
    """Proposes what followed the last few tokens where they stood before (Saxena 2023).

    The longest match counts, of up to three tokens, and of those the latest. Where what followed reaches the
    end of the text, it is taken to go on in the same period.
    """

    count: int  # K
    vocab_size: int

    def begin(self, model: None, tokens_BT: jax.Array, start_B: jax.Array, num_slots: int) -> tuple[()]:
        return ()

    def propose(
        self, model: None, memory: tuple[()], text: Text, key: jax.Array
    ) -> tuple[jax.Array, jax.Array, tuple[()]]:
        slot_S = jnp.arange(len(text.tokens))
        after = jnp.int32(-1)  # the slot after the match
        for size in range(1, _LONGEST_MATCH + 1):
            first = text.length - size
            matches_S = (slot_S >= text.start) & (slot_S < first)
            for at in range(size):
                matches_S &= jnp.roll(text.tokens, -at) == text.tokens[first + at]
            longer = jnp.max(jnp.where(matches_S, slot_S + size, -1))
            after = jnp.where(longer >= 0, longer, after)
        from_K = after + jnp.arange(self.count) % (text.length - after)
        proposed_K = jnp.where(after >= 0, text.tokens[from_K], -1)
        return proposed_K, jax.nn.one_hot(proposed_K, self.vocab_size), ()  # all 0 for -1


@dataclass(frozen=True)
class Draft:
    """Proposes what a smaller model with the same tokenizer draws, through a cache of its own."""

    count: int  # K
    sampling: SamplingConfig  # as of the model, or fewer proposals are taken

    def begin(self, model: Layout, tokens_BT: jax.Array, start_B: jax.Array, num_slots: int) -> KVCache:
        return prefill(model, tokens_BT, start_B, num_slots)[1]

    def propose(
        self, model: Layout, memory: KVCache, text: Text, key: jax.Array
    ) -> tuple[jax.Array, jax.Array, KVCache]:
        def guess(cache: KVCache, fed_T: jax.Array, key: jax.Array) -> tuple[KVCache, jax.Array, jax.Array]:
            hidden_BTD, written, _ = hidden_states(
                model.params, model.config, fed_T[None], start_B=text.start[None], cache=cache
            )
            assert written is not None
            q_V = probabilities(logits(model.params, model.config, hidden_BTD[:, -1]), self.sampling)[0]
            return written, jax.random.categorical(key, jnp.log(q_V)).astype(jnp.int32), q_V

        def guess_next(
            so_far: tuple[KVCache, jax.Array], key: jax.Array
        ) -> tuple[tuple[KVCache, jax.Array], tuple[jax.Array, jax.Array]]:
            cache, token, q_V = guess(so_far[0], so_far[1][None], key)
            return (cache, token), (token, q_V)

        keys_K = jax.random.split(key, self.count)
        # The last proposal of a call was never fed. If it stayed, the cache lacks it: so the last two tokens
        # go in together, the first of them mostly for the second time.
        cache = memory._replace(length=text.length - 2)
        last_two = jax.lax.dynamic_slice_in_dim(text.tokens, text.length - 2, 2)
        cache, token, q_V = guess(cache, last_two, keys_K[0])
        (cache, _), (tokens_K, q_KV) = jax.lax.scan(guess_next, (cache, token), keys_K[1:])
        proposed_K = jnp.concatenate([token[None], tokens_K])
        return proposed_K, jnp.concatenate([q_V[None], q_KV]), cache
