"""`llm_jax.generate`: token ids in, token ids out, for whoever has parameters and no tokenizer."""

from collections.abc import Sequence
from typing import Unpack

from llm_jax.base.tree import Tree
from llm_jax.config.model import ModelConfig
from llm_jax.inference.decode import generate_rows
from llm_jax.inference.request import TokenSettings, decoding_layout, requested


def generate(
    params: Tree, config: ModelConfig, token_ids: Sequence[int], **settings: Unpack[TokenSettings]
) -> list[int]:
    """Return the ids that continue these, without them.

    >>> config = llm_jax.ModelConfig(vocab_size=65, d_model=16, num_layers=2, num_heads=2)
    >>> params = llm_jax.init_params(jax.random.key(0), config)
    >>> ids = llm_jax.generate(params, config, [1, 2, 3], max_new_tokens=5, temperature=0.8, seed=1)
    >>> len(ids)
    5

    Args:
        params: of the model.
        config: its shape.
        token_ids: what is continued, one at least; of a longer text the last context_length are seen.
        **settings: max_new_tokens and seed as in `Generation`; temperature, top_k, top_p, min_p and
            repetition_penalty as in `SamplingConfig`, or one as `sampling`.

    Raises:
        UserError, DataError: there is no id, or one that the model has not.
    """
    request = requested({**settings})
    rows = generate_rows(decoding_layout(params, config), [list(token_ids)], request)
    return [int(drawn.tokens[0]) for drawn in rows]
