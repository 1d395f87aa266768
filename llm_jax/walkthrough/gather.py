"""What `explain` looks into: a run, an imported model or a fresh one, with a batch and one training step."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from llm_jax.base.batch import Batch
from llm_jax.base.errors import DataError
from llm_jax.base.tree import State
from llm_jax.checkpoints.reader import Step, read_about, read_params, read_restored
from llm_jax.checkpoints.step_files import checkpoint_directory
from llm_jax.config.load import config_from_dict, find_config, read_config
from llm_jax.config.rules import require
from llm_jax.config.run import Config, MovedConfig
from llm_jax.data.batches import OrderStart, batch_at
from llm_jax.data.corpora import read_corpus
from llm_jax.display.tokens import token_text, visible
from llm_jax.evaluation import verbatim
from llm_jax.inference.decode import generate_tokens
from llm_jax.inference.inspect import look
from llm_jax.inference.request import Generation, decoding_layout
from llm_jax.model.checks import check_tokens
from llm_jax.model.decoder import read_out
from llm_jax.runs import data
from llm_jax.runs.inherited import INHERITED
from llm_jax.runs.init_from import first_state
from llm_jax.tasks.saved import as_chosen
from llm_jax.tokenization.from_dict import tokenizer_from_dict
from llm_jax.tokenization.protocol import Tokenizer, decode
from llm_jax.training.losses import token_nats
from llm_jax.training.state import abstract_state, evaluated_params, init_state
from llm_jax.training.step import train_step
from llm_jax.walkthrough.lesson import Lesson, movements
from llm_jax.walkthrough.xray import Origin, Overlap, Passage, XRay, make_xray, mark_spans


class Subject(NamedTuple):
    """A model with the text that it is looked at on."""

    config: Config
    state: State
    tokenizer: Tokenizer
    train_tokens: np.ndarray  # [N]
    validation_tokens: np.ndarray  # [M], empty where nothing is held out
    step: int | None  # None for a fresh model
    order_start: OrderStart = OrderStart()


def find_subject(
    source: Path | None,
    report: Callable[[str], None],
    moved: MovedConfig = MovedConfig(),
    step: Step = "best",
) -> Subject:
    """Return the model in a directory, or a fresh one of a TOML file or of the default configuration.

    Args:
        source: the directory or the file.
        report: gets one line a remark.
        moved: where its text is now.
        step: which checkpoint of the directory: "best", "last" or a number.

    Raises:
        UserError: the directory, file or text cannot be used.
    """
    if source is None or (not source.is_dir() and find_config(source).suffix == ".toml"):
        require({f"step ({step}) must be left out for an untrained model": step == "best"})
        config = Config() if source is None else read_config([source], below=INHERITED)
        material = data.gather(data.moved_to(config, moved), report)
        return _subject(material, first_state(material.config, material.origin), None)
    directory = checkpoint_directory(source)
    about = read_about(directory, step)
    config = config_from_dict(about["config"], str(source))
    if about["data_fingerprint"] is None:
        return _imported(directory, data.moved_to(config, moved), about, report)
    if about.get("own_parts"):  # an optimizer, too, whose state only its program can read
        state = _with_params(config, directory, about["step"])
    else:
        _, state, about = read_restored(directory, abstract_state(config), step, report)
    about = as_chosen(source, step, about, report)
    return _subject(data.gather_again(about, str(source), report, moved), state, about["step"])


def make_lesson(subject: Subject, batch: Batch) -> Lesson:
    """Return a batch through a subject's model, and one optimizer step on it, seen from inside: at the run's
    highest learning rate, since that of its last step may be zero.
    """
    config, state = subject.config, subject.state
    params = evaluated_params(config.model, state)
    logits, seen = look(params, config.model, batch.tokens)
    _, seen_targets = look(params, config.model, batch.targets)
    optim = dataclasses.replace(config.optim, schedule="constant", warmup_steps=0)
    at_peak = dataclasses.replace(config, optim=optim)
    after, _ = train_step(at_peak, jax.tree.map(jnp.copy, state), batch)
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
    """Return a token id as text that can be seen."""
    return visible(token_text(tokenizer.token_bytes(token)))


def text_xray(subject: Subject, text: str | None) -> XRay:
    """Return the x-ray of a text, cut to the context; without one, of the beginning of the held-out text.
    What the tokenizer puts before every text is read before it.

    Raises:
        DataError: the text has fewer than two tokens.
    """
    model = subject.config.model
    params = evaluated_params(model, subject.state)
    held_out = subject.validation_tokens if len(subject.validation_tokens) else subject.train_tokens
    tokens = np.asarray(held_out if text is None else subject.tokenizer.encode(text))
    start = subject.tokenizer.start_ids
    tokens = np.append(start, tokens[: model.context_length + 1 - len(start)]).astype(np.int32)
    if len(tokens) < 2:
        raise DataError(f"the text to look at must have at least 2 tokens, got {len(tokens)}")
    check_tokens(tokens[:-1], model, "the text")
    check_tokens(tokens[-1:], model, "the text")
    logits, seen = look(params, model, tokens[None, :-1])
    blocks = seen.blocks
    return make_xray(
        tokens,
        logits[0],
        np.concatenate([blocks.block_input[:1, 0], blocks.block_output[:, 0]]),
        blocks.weights[:, 0],
        read_out=lambda stream: np.asarray(_read_out(params, model, stream)),
        token_bytes=subject.tokenizer.token_bytes,
        shared_ids=model.shared_ids,
        origin=None if subject.step is None else _origin(subject),
    )


_read_out = jax.jit(read_out, static_argnums=1)


def _origin(subject: Subject, samples: int = 3, context: int = 16) -> Origin:
    """Where samples of the model have their words from: the first in detail, of each the longest overlap."""
    settings, tokenizer = subject.config.train, subject.tokenizer
    prompt = [*tokenizer.start_ids, *tokenizer.encode(settings.prompt or "The").tolist()]
    model = subject.config.model
    layout = decoding_layout(evaluated_params(model, subject.state), model)
    request = Generation(sampling=settings.sampling, seed=settings.seed)
    rows = generate_tokens(layout, [prompt] * samples, request)
    texts = np.stack(list(rows), axis=1)
    index = verbatim.build_index(subject.train_tokens)
    spans = verbatim.verbatim_spans(index, texts[0], 3)
    found = verbatim.nearest_passages(index, texts[0], 4, context)
    return Origin(
        mark_spans(
            [token_text(tokenizer.token_bytes(int(token))) for token in texts[0]],
            [(span.start, span.length) for span in spans],
        ),
        [_passage(subject, index, passage) for passage in found],
        [
            Overlap(decode(tokenizer, text), verbatim.longest_overlap(index, text).length, len(text))
            for text in texts
        ],
    )


def _passage(subject: Subject, index: verbatim.Index, passage: verbatim.Passage) -> Passage:
    span = max(passage.spans, key=lambda span: span.length)
    start, end = span.position, span.position + span.length
    text = subject.train_tokens
    before, matched, after = (
        decode(subject.tokenizer, text[slice(*cut)])
        for cut in ((passage.start, start), (start, end), (end, passage.end))
    )
    return Passage(before, matched, after, verbatim.occurrences(index, text[start:end]))


def next_batch(subject: Subject) -> Batch:
    """Return the batch that training would take next."""
    settings = subject.config.train
    return batch_at(
        subject.train_tokens,
        order=settings.order,
        context_length=subject.config.model.context_length,
        batch_size=settings.batch_size,
        seed=settings.seed,
        step=int(subject.state["counters"]["batch"]),
        start_ids=subject.tokenizer.start_ids,
        start=subject.order_start,
    )


def _subject(material: data.Materials, state: State, step: int | None) -> Subject:
    store = material.store
    splits = (store.tokens("train"), store.tokens("validation"))
    return Subject(material.config, state, store.tokenizer, *splits, step, material.order_start)


def _imported(
    directory: Path, config: Config, about: dict[str, Any], report: Callable[[str], None]
) -> Subject:
    """Weights from elsewhere bring no text and no optimizer: the default corpus and a fresh one serve."""
    state = _with_params(config, directory, about["step"])
    corpus = read_corpus(
        config.data.corpus, downloads=config.data.downloads, errors=config.data.errors, report=report
    )
    tokenizer = tokenizer_from_dict(about["tokenizer"])
    tokens = tokenizer.encode(corpus.text)
    return Subject(config, state, tokenizer, tokens, tokens[:0], 0)


def _with_params(config: Config, directory: Path, step: int) -> State:
    """A fresh state with a checkpoint's parameters."""
    wanted = abstract_state(config)
    parts = [part for part in ("params", "ema") if part in wanted]
    read = {part: read_params(directory, wanted[part], name=part, step=step)[0] for part in parts}
    return init_state(config) | read
