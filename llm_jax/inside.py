"""What `explain` looks into: a run, an imported model or a fresh one, with a batch and one training step."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from llm_jax import materials
from llm_jax.batch import Batch
from llm_jax.config import Config
from llm_jax.data.batches import batch_at
from llm_jax.data.corpora import read_corpus
from llm_jax.data.tokenizers import Tokenizer, tokenizer_from_dict
from llm_jax.settings import config_from_dict, read_config
from llm_jax.training.checkpoint import read_about, read_params, read_restored
from llm_jax.training.losses import token_nats
from llm_jax.training.step import State, abstract_state, evaluated_params, init_state, train_step
from llm_jax.walkthrough.lesson import Lesson, look, movements, token_label


class Subject(NamedTuple):
    """A model with the text that it is looked at on."""

    config: Config
    state: State
    tokenizer: Tokenizer
    train_tokens: np.ndarray  # [N]
    validation_tokens: np.ndarray  # [M], empty where nothing is held out
    step: int | None  # None for a fresh model


def find_subject(source: Path | None, report: Callable[[str], None]) -> Subject:
    """The model in a directory, or a fresh one of a TOML file or of the default configuration.

    Raises:
        UserError: the directory, file or text cannot be used.
    """
    if source is None or source.suffix == ".toml":
        material = materials.gather(Config() if source is None else read_config([source]), report)
        return _subject(material, init_state(material.config), None)
    directory = materials.checkpoint_directory(source)
    about = read_about(directory)
    config = config_from_dict(about["config"], str(source))
    if about["data_fingerprint"] is None:
        return _imported(directory, config, about, report)
    material = materials.gather_again(about, str(source), report)
    restored = read_restored(directory, abstract_state(config))
    return _subject(material, restored.state, restored.step)


def make_lesson(subject: Subject, batch: Batch) -> Lesson:
    """A batch through a subject's model, and one optimizer step on it, seen from inside."""
    config, state = subject.config, subject.state
    params = evaluated_params(state)
    logits, seen = look(params, config.model, batch.tokens)
    _, seen_targets = look(params, config.model, batch.targets)
    after, _ = train_step(config, jax.tree.map(jnp.copy, state), batch)
    text = np.concatenate([subject.train_tokens, subject.validation_tokens])
    named = {*batch.tokens.flat, *batch.targets.flat, *text[:8], *range(min(8, config.model.vocab_size))}
    return Lesson(
        config=config.model,
        params=jax.device_get(params),
        text_tokens=text,
        batch=batch,
        labels={int(token): label(subject.tokenizer, int(token)) for token in named},
        seen=seen,
        embedded_targets=seen_targets.token_embedding,
        logits=logits,
        nats=np.asarray(token_nats(params, config.model, batch)),
        movements=movements(state["params"], after["params"]),
    )


def label(tokenizer: Tokenizer, token: int) -> str:
    """A token id as text that can be seen."""
    return token_label(tokenizer.token_bytes(token))


def next_batch(subject: Subject) -> Batch:
    """The batch that training would take next."""
    settings = subject.config.train
    return batch_at(
        subject.train_tokens,
        order=settings.order,
        context_length=subject.config.model.context_length,
        batch_size=settings.batch_size,
        seed=settings.seed,
        step=int(subject.state["counters"]["batch"]),
    )


def _subject(material: materials.Materials, state: State, step: int | None) -> Subject:
    store = material.store
    return Subject(
        material.config, state, store.tokenizer, store.tokens("train"), store.tokens("validation"), step
    )


def _imported(
    directory: Path, config: Config, about: dict[str, Any], report: Callable[[str], None]
) -> Subject:
    """Weights from elsewhere bring no text and no optimizer: the default corpus and a fresh one serve."""
    params, _ = read_params(directory, abstract_state(config)["params"])
    corpus = read_corpus(
        config.data.corpus, downloads=config.data.prepared, errors=config.data.errors, report=report
    )
    tokenizer = tokenizer_from_dict(about["tokenizer"])
    tokens = tokenizer.encode(corpus.text)
    return Subject(config, init_state(config) | {"params": params}, tokenizer, tokens, tokens[:0], 0)
