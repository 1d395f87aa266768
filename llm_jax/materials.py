"""A run's materials, wired for the doors: data, resolved configuration, evaluation and floors."""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from llm_jax.batch import Batch
from llm_jax.config import Config
from llm_jax.data.batches import batch_at, evaluation_batches
from llm_jax.data.compact import CompactTokenizer
from llm_jax.data.corpora import read_corpus
from llm_jax.data.store import Store, prepare_store
from llm_jax.data.tokenizers import Tokenizer
from llm_jax.errors import CheckpointError, DataError
from llm_jax.evaluation.baselines import cached_floors
from llm_jax.evaluation.metrics import Score, evaluate
from llm_jax.training.losses import token_nats
from llm_jax.tree import Tree


class Materials(NamedTuple):
    """What training and evaluation work on."""

    config: Config  # with the vocabulary size filled in
    store: Store

    def batch_at(self, index: int) -> Batch:
        """The training batch with this index: a pure function of it and the seed."""
        return batch_at(
            self.store.tokens("train"),
            order=self.config.train.order,
            context_length=self.config.model.context_length,
            batch_size=self.config.train.batch_size,
            seed=self.config.train.seed,
            step=index,
        )

    def evaluate(self, params: Tree) -> Score:
        """The score over the whole validation split."""
        tokens = self.store.tokens("validation")
        num_bytes = self.store.num_bytes("validation") - len(self.store.tokenizer.token_bytes(int(tokens[0])))
        return score_tokens(self.config, params, tokens, num_bytes)

    def floors(self) -> dict[str, float]:
        """Nats per token that n-gram counts reach on the validation split; counted once."""
        return cached_floors(
            self.store.path / "floors.json",
            self.store.tokens("train"),
            self.store.tokens("validation"),
            self.config.model.vocab_size,
        )


def gather(config: Config, report: Callable[[str], None]) -> Materials:
    """Prepares or opens the token store and fills in what follows from it.

    Raises:
        DataError: the text or the store cannot be used, or the model's vocabulary is too small for it.
    """
    store = prepare_store(config.data, report=report)
    config = with_vocabulary(config, store.tokenizer)
    largest = max(int(np.max(store.tokens(split))) for split in ("train", "validation"))
    if largest >= config.model.vocab_size:
        raise DataError(
            f"model.vocab_size ({config.model.vocab_size}) must be above the largest token id of the text, "
            f"{largest}"
        )
    return Materials(config, store)


def require_same_data(material: Materials, about: Mapping[str, Any], directory: Path) -> None:
    """CheckpointError unless these are the data that the checkpoint in a run directory says it saw."""
    if material.store.fingerprint != about["data_fingerprint"]:
        raise CheckpointError(
            f"{directory} was trained on other data than {material.config.data.corpus} holds now; "
            "put that text back as it was (a text of its own is scored by evaluate --text)"
        )


def with_vocabulary(config: Config, tokenizer: Tokenizer) -> Config:
    """The configuration with `vocab_size` = 0 replaced by the tokenizer's, and `shared_ids` with it."""
    if config.model.vocab_size:
        return config
    shared_ids = tokenizer.shared_ids if isinstance(tokenizer, CompactTokenizer) else 0
    model = dataclasses.replace(config.model, vocab_size=tokenizer.vocab_size, shared_ids=shared_ids)
    return dataclasses.replace(config, model=model)


def score_tokens(config: Config, params: Tree, tokens: np.ndarray, num_bytes: int) -> Score:
    """The score over a text's tokens, each but the first a target once."""
    batches = evaluation_batches(
        tokens,
        context_length=config.model.context_length,
        batch_size=config.train.eval_batch_size,
        stride=config.train.eval_stride,
    )
    return evaluate(lambda batch: token_nats(params, config.model, batch), batches, num_bytes)


def checkpoint_directory(run: Path) -> Path:
    """Where a run keeps its checkpoints."""
    return run / "checkpoints"


def score_text(config: Config, params: Tree, tokenizer: Tokenizer, path: Path) -> Score:
    """The score over a text file or folder.

    Raises:
        DataError: it cannot be read, or has an id that the model has not.
    """
    corpus = read_corpus(str(path), downloads=config.data.prepared, errors=config.data.errors, report=print)
    tokens = tokenizer.encode(corpus.text)
    if tokens.size and tokens.max() >= config.model.vocab_size:
        raise DataError(f"{path} has token id {tokens.max()}; the model has {config.model.vocab_size} ids")
    num_bytes = sum(len(tokenizer.token_bytes(int(token))) for token in tokens[1:])
    return score_tokens(config, params, tokens, num_bytes)
