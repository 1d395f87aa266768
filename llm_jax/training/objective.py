"""What training lowers, as pure functions: how parameters begin, the loss of a batch, and its terms."""

import dataclasses
from collections.abc import Callable
from typing import Any, Protocol

import jax

from llm_jax.base.batch import Batch
from llm_jax.base.tree import Tree
from llm_jax.config.model import ModelConfig


class Loss(Protocol):
    """Return (sum, weight) of a batch's loss, in nats: parts of a batch add up both, and divide once."""

    def __call__(
        self,
        params: Tree,
        config: ModelConfig,
        batch: Batch,
        dropout_key: jax.Array | None,
        first_row: jax.typing.ArrayLike = 0,
        use: Any = None,
    ) -> tuple[jax.Array, jax.Array]:
        """
        Args:
            params: as the model reads them.
            config: the decoder.
            batch: a whole one, or some rows of one.
            dropout_key: that of the whole batch; None for no dropout.
            first_row: the first row's number in the whole batch.
            use: what the whole batch makes of its experts, where these rows are not all of it.
        """
        ...


@dataclasses.dataclass(frozen=True)
class Objective:
    """A value that can be hashed: a train step is compiled for each.

    Args:
        init_params: (key, decoder) -> parameters.
        loss: of a batch.
        nats: (params, decoder, batch, dropout_key, first_row) -> the loss's term of each target, [B, T].
        packed: whether a row holds several texts, so that batches say where each begins.
    """

    init_params: Callable[[jax.Array, ModelConfig], Tree]
    loss: Loss
    nats: Callable[[Tree, ModelConfig, Batch, jax.Array | None, jax.typing.ArrayLike], jax.Array]
    packed: bool = False

    def packing(self) -> "Objective":
        """Return the same objective on rows that hold several texts."""
        return dataclasses.replace(self, packed=True)
