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
from llm_jax.data.tokenizers import Tokenizer, tokenizer_from_dict
from llm_jax.errors import CheckpointError, DataError
from llm_jax.evaluation.baselines import cached_floors
from llm_jax.evaluation.compare import Scored
from llm_jax.evaluation.metrics import Score, summarise, target_nats
from llm_jax.model.checks import check_precision
from llm_jax.origin import Origin, find_origin, recorded_origin, require_same_model
from llm_jax.settings import config_from_dict
from llm_jax.training.losses import token_nats
from llm_jax.tree import Tree


class Materials(NamedTuple):
    """What training and evaluation work on."""

    config: Config  # with the vocabulary size filled in
    store: Store
    origin: Origin | None = None  # what the run starts from, where that is not fresh weights

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
        return summarise(score_tokens(self.config, params, tokens), num_bytes)

    def scored(self, params: Tree) -> Scored:
        """The nats of every target of the validation split, at its place in the text's bytes."""
        tokens, manifest = self.store.tokens("validation"), self.store.manifest
        size_N = np.array([len(self.store.tokenizer.token_bytes(int(token))) for token in tokens])
        end_N = self.store.num_bytes("train") + np.cumsum(size_N)
        nats = score_tokens(self.config, params, tokens)
        return Scored(manifest["corpus"], manifest["settings"]["text_sha256"], int(end_N[0]), end_N[1:], nats)

    def floors(self) -> dict[str, float]:
        """Nats per token that n-gram counts reach on the validation split; counted once."""
        return cached_floors(
            self.store.path / "floors.json",
            self.store.tokens("train"),
            self.store.tokens("validation"),
            self.config.model.vocab_size,
        )


def gather(config: Config, report: Callable[[str], None], origin: Origin | None = None) -> Materials:
    """Prepares or opens the token store and fills in what follows from it.

    Args:
        config: the run.
        report: gets one line a remark.
        origin: what the run started from, where that is known already; else `train.init_from` is looked into.

    Raises:
        DataError: the text or the store cannot be used, or the model's vocabulary is too small for it.
        UserError: the model is not the one in `train.init_from`, or JAX has its types only when told so.
        CheckpointError: there is none.
    """
    check_precision(config.model)
    if origin is None and config.train.init_from:
        origin = find_origin(config.train.init_from, config.train.run)
    if origin is not None:
        require_same_model(config.model, origin)
    store = prepare_store(config.data, report, tokenizer_from_dict(origin.tokenizer) if origin else None)
    config = with_vocabulary(config, store.tokenizer)
    largest = max(int(np.max(store.tokens(split))) for split in ("train", "validation"))
    if largest >= config.model.vocab_size:
        raise DataError(
            f"model.vocab_size ({config.model.vocab_size}) must be above the largest token id of the text, "
            f"{largest}"
        )
    return Materials(config, store, origin)


def with_vocabulary(config: Config, tokenizer: Tokenizer) -> Config:
    """The configuration with `vocab_size` = 0 replaced by the tokenizer's, and `shared_ids` with it."""
    if config.model.vocab_size:
        return config
    shared_ids = tokenizer.shared_ids if isinstance(tokenizer, CompactTokenizer) else 0
    model = dataclasses.replace(config.model, vocab_size=tokenizer.vocab_size, shared_ids=shared_ids)
    return dataclasses.replace(config, model=model)


def gather_again(about: Mapping[str, Any], source: str, report: Callable[[str], None]) -> Materials:
    """The materials that a checkpoint was trained on.

    Args:
        about: what the checkpoint says of itself.
        source: names it in messages.
        report: gets one line a remark.

    Raises:
        CheckpointError: its corpus holds another text now.
        UserError: the configuration or the text cannot be used.
    """
    config = config_from_dict(about["config"], source)
    material = gather(config, report, recorded_origin(about))
    if material.store.fingerprint != about["data_fingerprint"]:
        raise CheckpointError(
            f"{source} was trained on other data than {config.data.corpus} holds now; "
            "evaluate --text scores any text"
        )
    return material


def score_tokens(config: Config, params: Tree, tokens: np.ndarray) -> np.ndarray:
    """The nats of a text's tokens [N], each but the first a target once, [N - 1]."""
    batches = evaluation_batches(
        tokens,
        context_length=config.model.context_length,
        batch_size=config.train.eval_batch_size,
        stride=config.train.eval_stride,
    )
    return target_nats(lambda batch: token_nats(params, config.model, batch), batches)


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
    return summarise(score_tokens(config, params, tokens), num_bytes)
