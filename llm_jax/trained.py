"""`llm_jax.load`: a trained model as a value with its configuration, parameters and tokenizer.

The directory needs nothing beside it: the checkpoint in it carries configuration and tokenizer.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import jax
import numpy as np

from llm_jax.config import Config, SamplingConfig
from llm_jax.data.streaming import StreamDecoder
from llm_jax.data.tokenizers import Tokenizer, tokenizer_from_dict
from llm_jax.errors import UserError
from llm_jax.inference.decode import generate_tokens, lay_out
from llm_jax.inference.text import stream_text
from llm_jax.model.checks import check_tokens
from llm_jax.model.decoder import abstract_params, forward
from llm_jax.model_config import ModelConfig
from llm_jax.settings import config_from_dict
from llm_jax.training.checkpoint import read_about, read_params
from llm_jax.tree import Tree

_forward = jax.jit(forward, static_argnums=1)


@dataclass(frozen=True)
class Trained:
    """A model that can be asked."""

    config: ModelConfig
    params: Tree
    tokenizer: Tokenizer
    about: dict[str, Any]  # what the checkpoint says of itself: "config", "step", "metrics", versions ...

    @cached_property
    def _laid_out(self) -> Tree:
        return lay_out(self.params)

    def logits(self, token_ids: Sequence[int] | np.ndarray) -> np.ndarray:
        """Scores of each next token, [T, V] for ids [T] and [B, T, V] for [B, T]."""
        tokens = np.atleast_2d(np.asarray(token_ids, np.int32))
        check_tokens(tokens, self.config, "token_ids")
        scores_BTV = np.asarray(_forward(self.params, self.config, tokens)[0])
        return scores_BTV[0] if np.ndim(token_ids) == 1 else scores_BTV

    def generate(
        self,
        prompt: str,
        *,
        max_new_tokens: int = 100,
        sampling: SamplingConfig = SamplingConfig(),
        seed: int = 0,
        stop: Sequence[str] = (),
    ) -> str:
        """The prompt's continuation, without the prompt."""
        return "".join(
            self.stream(prompt, max_new_tokens=max_new_tokens, sampling=sampling, seed=seed, stop=stop)
        )

    def stream(
        self,
        prompt: str,
        *,
        max_new_tokens: int,
        sampling: SamplingConfig,
        seed: int,
        stop: Sequence[str] = (),
    ) -> Iterator[str]:
        """The continuation piece by piece; a piece never ends inside a character."""
        rows = self._rows(prompt, 1, max_new_tokens, sampling, seed)
        return stream_text((int(row[0]) for row in rows), StreamDecoder(self.tokenizer), stop)

    def generate_samples(
        self,
        prompt: str,
        count: int,
        *,
        max_new_tokens: int,
        sampling: SamplingConfig,
        seed: int,
        stop: Sequence[str] = (),
    ) -> list[str]:
        """Several continuations of one prompt, drawn together."""
        rows = zip(*self._rows(prompt, count, max_new_tokens, sampling, seed), strict=True)
        return ["".join(stream_text(map(int, row), StreamDecoder(self.tokenizer), stop)) for row in rows]

    def _rows(
        self, prompt: str, count: int, max_new_tokens: int, sampling: SamplingConfig, seed: int
    ) -> Iterator[np.ndarray]:
        prompts = [self.encode_prompt(prompt)] * count
        return generate_tokens(
            self._laid_out, self.config, prompts, max_new_tokens=max_new_tokens, sampling=sampling, seed=seed
        )

    def encode_prompt(self, prompt: str) -> list[int]:
        """The prompt's token ids; UserError for an empty one."""
        if not prompt:
            raise UserError("the prompt must not be empty")
        return self.tokenizer.encode(prompt).tolist()


def load(directory: str | Path, *, step: int | None = None) -> Trained:
    """Reads a run directory, or one that `convert import` made.

    Args:
        directory: holds `checkpoints/`.
        step: which checkpoint; the newest that verifies without one.

    Raises:
        CheckpointError: there is none, or it is damaged.
    """
    checkpoints = Path(directory) / "checkpoints"
    about = read_about(checkpoints, step)
    config: Config = config_from_dict(about["config"], f"the checkpoint in {directory}")
    name = "ema" if config.optim.ema_decay else "params"
    params, about = read_params(checkpoints, abstract_params(config.model), name=name, step=step)
    return Trained(config.model, params, tokenizer_from_dict(about["tokenizer"]), about)
