"""A run's materials, wired for the commands: data, resolved configuration, evaluation and baselines."""

import dataclasses
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from llm_jax.base.batch import Batch
from llm_jax.base.devices import Placement
from llm_jax.base.errors import CheckpointError, DataError, UserError
from llm_jax.base.terminal import say
from llm_jax.base.tree import Tree
from llm_jax.checkpoints.reader import read_about
from llm_jax.checkpoints.step_files import checkpoint_directory, saved_steps
from llm_jax.config.changes import History, config_at, sequences_before
from llm_jax.config.load import config_from_dict, to_dict
from llm_jax.config.run import Config, MovedConfig
from llm_jax.data.batches import OrderStart, whole_epochs
from llm_jax.data.corpora import NAMES, STANDARD_INPUT, is_given_input, read_corpus
from llm_jax.data.known_store import find_store
from llm_jax.data.store import Store
from llm_jax.evaluation.compare import Scored
from llm_jax.evaluation.metrics import Score
from llm_jax.language_model.model import LanguageModel
from llm_jax.model.checks import check_precision
from llm_jax.runs.init_from import Origin, find_origin, recorded_origin, require_same_model, sequences_drawn
from llm_jax.runs.own_parts import OwnParts
from llm_jax.tasks.by_name import find_task
from llm_jax.tasks.language_modelling import held_out, target_nats
from llm_jax.tasks.task import Inherited, Task
from llm_jax.tokenization.chat_format import ChatFormat, chat_format_from_dict
from llm_jax.tokenization.compact import CompactTokenizer
from llm_jax.tokenization.from_dict import tokenizer_from_dict
from llm_jax.tokenization.protocol import Tokenizer
from llm_jax.training.state import Setup


class Materials(NamedTuple):
    """What training and evaluation work on."""

    config: Config  # with the vocabulary size filled in
    store: Store
    origin: Origin | None = None  # what the run starts from, where that is not fresh weights
    history: History = ()  # what changed while the run went on
    own: OwnParts = OwnParts()  # what a program handed in

    @property
    def order_start(self) -> OrderStart:
        """From where on the newest configuration counts batches."""
        batch, sequences = sequences_before(self.history)
        return OrderStart(batch, sequences + ((self.origin and self.origin.sequences) or 0))

    def at(self, step: int) -> "Materials":
        """Return the materials under the configuration that held in a step, numbered from 1."""
        if all(line["step"] < step for line in self.history):
            return self
        config = config_at(to_dict(self.config), self.history, step, "the checkpoint")
        return self._replace(config=config, history=[line for line in self.history if line["step"] < step])

    @property
    def task(self) -> Task:
        """What the model learns."""
        return self.own.task(find_task(self.config.task))

    @property
    def samples(self) -> bool:
        """Whether samples are drawn."""
        return self.task.writes_text and self.config.train.sample_tokens > 0

    def setup(self, placement: Placement | None = None) -> Setup:
        """Return what a train step of the run is, beside its configuration."""
        return Setup(self.task.objective, placement, self.own.optimizer)

    def batch_at(self, index: int) -> Batch:
        """Return the training batch with this index: a pure function of it and the seed."""
        return self.task.batch_at(self.config, self.store, index, self.order_start)

    def chat(self) -> dict[str, Any]:
        """Return what checkpoints say of where a text ends, as "chat"; nothing where no token says it."""
        if "chat" in self.store.manifest:
            settings = self.store.manifest["settings"]
            return {"chat": self.store.manifest["chat"], "template_sha256": settings["template_sha256"]}
        end = self.store.end_of_text
        return {} if end is None else {"chat": ChatFormat(eos=end.content, eos_ids=(end.id,)).to_dict()}

    def evaluate(self, params: Tree) -> dict[str, float]:
        """Return the task's numbers over all that is held out; "loss" is among them."""
        return self.task.evaluate(params, self.config, self.store)

    def baselines(self) -> dict[str, float]:
        """Return losses that the model is held against."""
        return self.task.baselines(self.config, self.store)

    def scored(self, params: Tree) -> Scored:
        """Return the nats of every target of the validation split, at its place in the text's bytes."""
        text, manifest = held_out(self.store), self.store.manifest
        ends = np.append(0, np.cumsum(self.store.sizes, dtype=np.int64))
        edges = self.store.num_bytes("train") + ends[text.given :]
        source = manifest["settings"]["text_sha256"]
        nats = target_nats(params, self.config, self.store, text)
        altered_by = manifest["tokenizer_sha256"] if self.store.alters_text else ""
        return Scored(manifest["corpus"], source, int(edges[0]), edges[1:], nats, altered_by)


def gather(
    config: Config,
    report: Callable[[str], None],
    origin: Origin | None = None,
    store: Store | None = None,
) -> Materials:
    """Prepare or opens the token store and fills in what follows from it.

    Args:
        config: the run.
        report: gets one line a remark.
        origin: what the run started from, where that is known already; else `train.init_from` is looked into.
        store: the text's, where that is open already.

    Raises:
        DataError: the text or the store cannot be used, or the model's vocabulary is too small for it.
        UserError: the model is not the one in `train.init_from`, or JAX has its types only when told so.
        CheckpointError: there is none.
    """
    check_precision(config.model)
    task = find_task(config.task)
    if origin is None and config.train.init_from:
        origin = find_origin(config.train.init_from, config.train.run)
    if origin is not None:
        require_same_model(config.model, origin)
    if store is None and config.data.corpus in STANDARD_INPUT and not is_given_input():
        store = _kept_store(config, report)
    if store is None:
        store = task.open_store(config, report, _inherited(origin))
    config = with_outputs(config, store)
    largest = max(int(np.max(shard)) for shard in store.shards.values())
    if largest >= config.model.vocab_size:
        raise DataError(
            f"model.vocab_size ({config.model.vocab_size}) must be above the largest token id of the text, "
            f"{largest}"
        )
    origin = origin and _leaving_out(origin, config, store)
    return Materials(config, store, origin)


def _inherited(origin: Origin | None) -> Inherited:
    if origin is None:
        return Inherited()
    tokenizer = tokenizer_from_dict(origin.tokenizer)
    return Inherited(tokenizer, chat_format_from_dict(origin.chat, tokenizer.vocab_size))


def _kept_store(config: Config, report: Callable[[str], None]) -> Store | None:
    """The tokens of a run that goes on, whose text came through standard input; None where there are none."""
    directory = checkpoint_directory(config.train.run)
    about = read_about(directory) if saved_steps(directory) else {}
    if not about or config_from_dict(about["config"], str(directory)).data.corpus not in STANDARD_INPUT:
        return None
    if store := find_store(config.data.prepared, config.data.tokenizer, about["data_fingerprint"]):
        report(f"standard input has nothing: {config.train.run} goes on with its tokens in {store.path}")
    return store


def _leaving_out(origin: Origin, config: Config, store: Store) -> Origin:
    """A new run's origin with what its order of batches leaves out: what that model has seen in this order,
    and on other data, where no window is one that it saw, the rest of an epoch, too.
    """
    if origin.sequences is not None:
        return origin
    drawn, data = sequences_drawn(config.train.init_from, origin.step)
    if data != store.fingerprint:
        size, start_ids = len(store.tokens("train")), store.tokenizer.start_ids
        drawn = 0 if store.labels else whole_epochs(drawn, size, config.model.context_length, start_ids)
    return origin._replace(sequences=drawn)


def with_outputs(config: Config, store: Store) -> Config:
    """Return the configuration with what follows from its data: vocabulary, labels and their columns.

    Raises:
        DataError: the model has outputs for another number of labels.
        UserError: its attention cannot read rows of several texts.
    """
    config, found = with_vocabulary(config, store.tokenizer), len(store.labels)
    if config.model.num_labels not in (0, found):
        raise DataError(
            f"model.num_labels ({config.model.num_labels}) must be the number of labels in training, "
            f"{found}; leave it out"
        )
    if not found:
        return config
    if config.model.attention == "fused":
        raise UserError("model.attention = fused cannot keep the texts of a row apart; set it to plain")
    texts, label = (store.manifest["labels"][name] for name in ("texts", "label"))
    return dataclasses.replace(
        config,
        model=dataclasses.replace(
            config.model,
            num_labels=found,
            factor_values=store.factors.values,
            factor_slots=store.factors.slots,
        ),
        data=dataclasses.replace(config.data, text_column=texts[0] if len(texts) == 1 else ""),
        task=dataclasses.replace(config.task, label_column=label),
    )


def with_vocabulary(config: Config, tokenizer: Tokenizer) -> Config:
    """Return the configuration with `vocab_size` = 0 replaced by the tokenizer's, and `shared_ids` with
    it.
    """
    if config.model.vocab_size:
        return config
    shared_ids = tokenizer.shared_ids if isinstance(tokenizer, CompactTokenizer) else 0
    model = dataclasses.replace(config.model, vocab_size=tokenizer.vocab_size, shared_ids=shared_ids)
    return dataclasses.replace(config, model=model)


def gather_again(
    about: Mapping[str, Any],
    source: str,
    report: Callable[[str], None],
    moved: MovedConfig = MovedConfig(),
) -> Materials:
    """Return the materials that a checkpoint was trained on. They are known by their hash: a store that has
    it is enough, and so is the same text in another place.

    Args:
        about: what the checkpoint says of itself.
        source: names it in messages.
        report: gets one line a remark.
        moved: where they are now.

    Raises:
        CheckpointError: its corpus holds another text now.
        DataError: neither text nor tokens are where they were.
        UserError: the configuration or the text cannot be used.
    """
    config = moved_to(config_from_dict(about["config"], source), moved)
    data, wanted = config.data, about["data_fingerprint"]
    store = None if moved.corpus else find_store(data.prepared, data.tokenizer, wanted)
    if store is None and not (data.corpus in NAMES or os.path.exists(data.corpus)):
        raise DataError(
            f"the text that {source} was trained on must be at {data.corpus}, or its tokens in "
            f"{data.prepared}, and neither is there: say where with --corpus PATH or --prepared FOLDER"
        )
    material = gather(config, report, recorded_origin(about), store)
    if material.store.fingerprint != wanted:
        raise CheckpointError(
            f"{source} was trained on other data than {data.corpus} holds now: --corpus says where that is, "
            "and evaluate --text scores any text"
        )
    return material._replace(history=about.get("changes", ()))


def moved_to(config: Config, moved: MovedConfig) -> Config:
    """Return the configuration with its text and its token stores in other places."""
    places = {
        "corpus": moved.corpus or config.data.corpus,
        "prepared": moved.prepared or config.data.prepared,
    }
    return dataclasses.replace(config, data=dataclasses.replace(config.data, **places))


def score_text(model: LanguageModel, path: Path) -> Score:
    """Return the score over a text file or folder, as `LanguageModel.score` gives it.

    Raises:
        DataError: it cannot be read, or has an id that the model has not.
    """
    config = config_from_dict(model.about["config"], "the checkpoint")
    corpus = read_corpus(str(path), downloads=config.data.downloads, errors=config.data.errors, report=say)
    return model.evaluate(corpus.text)
