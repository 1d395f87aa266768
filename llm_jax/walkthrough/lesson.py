"""What the walkthrough looks at: one batch through the model and one training step, as plain numpy arrays.

The forward pass is the decoder's own; what training does comes in as values. Legend: B batch, T tokens, D
d_model, V vocabulary, L layers, N tokens of the whole text.
"""

from typing import NamedTuple

import numpy as np

from llm_jax.base.batch import Batch
from llm_jax.base.errors import UserError
from llm_jax.base.tree import Tree, flatten
from llm_jax.config.model import NOT_COMPUTED, ModelConfig
from llm_jax.model.activations import Activations


class Movement(NamedTuple):
    """How one optimizer step changed one array; sizes are root mean squares of its entries."""

    path: str
    layer: int | None  # None outside the blocks
    size: float  # before the step
    update: float
    moved: float  # share of the entries that changed at all


class Lesson(NamedTuple):
    """One batch, seen through."""

    config: ModelConfig
    params: Tree  # numpy arrays
    text_tokens: np.ndarray  # [N], the whole text
    batch: Batch  # [B, T]
    labels: dict[int, str]  # of every token that is named
    seen: Activations
    embedded_targets: np.ndarray  # [B, T, D]
    logits: np.ndarray  # [B, T, V]
    nats: np.ndarray  # [B, T], cross-entropy of each target
    movements: list[Movement]


# What may be set in a model that the stages tell of; all else must be as in the tutorial.
_TOLD = NOT_COMPUTED | {
    *("vocab_size", "shared_ids", "spare_embedding_rows", "context_length"),
    *("d_model", "num_layers", "num_heads", "d_ff", "positions", "activation", "qk_norm", "qkv_bias"),
    *("tied_head", "head_bias", "norm_eps"),
}


def require_told(config: ModelConfig) -> None:
    """Raise UserError for a model with a part that the stages do not tell of."""
    usual = ModelConfig()
    odd = [
        name for name, value in vars(config).items() if value != getattr(usual, name) and name not in _TOLD
    ]
    if odd:
        raise UserError(
            f"explain supports tutorial- and GPT-2-style models so far; this one has another {odd}"
        )


def movements(before: Tree, after: Tree) -> list[Movement]:
    """Return how far each array of a parameter tree went in one step, the blocks' by layer, in the tree's
    order.
    """
    found, later = [], dict(flatten(after))
    for path, old in flatten(before):
        new = later[path]
        layers = range(len(old)) if path.startswith("blocks/") else [None]
        for layer in layers:
            x, y = (np.asarray(leaf if layer is None else leaf[layer], np.float64) for leaf in (old, new))
            found.append(
                Movement(
                    path.removeprefix("blocks/"),
                    layer,
                    float(np.sqrt(np.mean(x**2))),
                    float(np.sqrt(np.mean((y - x) ** 2))),
                    float(np.mean(x != y)),
                )
            )
    return found
