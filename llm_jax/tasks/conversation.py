"""The task of conversations: what the assistant says, given all that was said before.

Prompts with their answers, instructions and texts with summaries are conversations of two messages.
"""

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from llm_jax.base.bars import tracked
from llm_jax.base.batch import Batch
from llm_jax.base.errors import DataError, UserError
from llm_jax.base.files import remove_left
from llm_jax.base.tree import Tree
from llm_jax.config.run import Config
from llm_jax.data import dialogue_batches
from llm_jax.data.batches import OrderStart
from llm_jax.data.dialogues import Dialogue, read_dialogues
from llm_jax.data.grouped_splits import split_rows
from llm_jax.data.label_files import table_form
from llm_jax.data.labelled import write_marked
from llm_jax.data.store import VERSION, Marks, Store, open_store
from llm_jax.data.store_files import UNFINISHED
from llm_jax.tasks.task import Inherited, Metric, Task
from llm_jax.tokenization.chat_format import ChatFormat
from llm_jax.tokenization.conversation import Trained, trained_tokens
from llm_jax.tokenization.protocol import Tokenizer, fingerprint
from llm_jax.tokenization.text_bytes import Encoded, own_sizes
from llm_jax.training.losses import NEXT_TOKEN, token_nats

_SHOWN = 5  # conversations that are named where some are left out
Report = Callable[[str], None]


def open_dialogues(config: Config, report: Report, inherited: Inherited) -> Store:
    """Return the store of a file's conversations as a model is to learn them.

    Raises:
        DataError: the file has none, or one is not as the model's template would have it.
        UserError: the run starts from no model with a chat template.
    """
    tokenizer, chat = inherited
    if tokenizer is None or chat.template is None:
        raise UserError(
            "task.name = conversation needs train.init_from, a model with a chat template: llm-jax convert "
            "import smollm2 models/smollm2 gives one"
        )
    path = Path(config.data.corpus)
    asked = config.task.prompt_column, config.task.answer_column
    dialogues = read_dialogues(path, report, table_form(config.data), *asked)
    held, test = config.data.validation_fraction, config.task.test_fraction
    texts = [each.text for each in dialogues]
    split = split_rows(texts, [""] * len(texts), (1 - held - test, held, test), config.task.split_seed)
    report(str(split.report))
    names = ("train", "validation", "test") if test else ("train", "validation")
    splits = {name: [dialogues[row] for row in getattr(split, name)] for name in names}
    settings = {
        "version": VERSION,
        "tokenizer": fingerprint(tokenizer),
        "template_sha256": template_digest(chat),
        "context_length": config.model.context_length,
        "text_sha256": _digest(splits),
    }
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()
    name = path.name.partition(".")[0] or "corpus"
    store = config.data.prepared / f"{name}-conversation-{digest[:12]}"
    remove_left(config.data.prepared, UNFINISHED)
    if not os.path.lexists(store):
        room = config.model.context_length + 1
        encoded = {split: _encode(some, tokenizer, chat, room, report) for split, some in splits.items()}
        raw = {split: "\n".join(each.text for each in some) for split, some in splits.items()}
        facts: dict[str, Any] = {"chat": chat.to_dict()}
        facts["labels"] = {"names": [], "texts": [], "label": "", "factors": []}
        write_marked(store, name, settings, encoded, raw, tokenizer, facts)
        report(f"prepared {store}")
    return open_store(store)


def template_digest(chat: ChatFormat) -> str:
    """Return SHA-256 of the chat template, by which checkpoints say how messages became text."""
    return hashlib.sha256((chat.template or "").encode()).hexdigest()


def _digest(splits: dict[str, list[Dialogue]]) -> str:
    told = hashlib.sha256()
    for name, dialogues in splits.items():
        for each in dialogues:
            told.update(json.dumps([name, each.messages]).encode())
    return told.hexdigest()


def _encode(
    dialogues: Sequence[Dialogue], tokenizer: Tokenizer, chat: ChatFormat, room: int, report: Report
) -> tuple[Encoded, Marks]:
    """Conversations as tokens; those that do not fit are left out, and said."""
    found: list[Trained] = []
    too_long: list[str] = []
    for each in tracked(dialogues, "cutting the conversations into tokens"):
        try:
            trained = trained_tokens(each.messages, chat, tokenizer)
        except DataError as error:
            raise DataError(f"{each.place}: {error}") from None
        if not trained.is_answer[1:].any():
            raise DataError(f"{each.place} must have an answer of at least one token, and it has none")
        if len(trained.ids) > room:
            too_long.append(each.place)
        else:
            found.append(trained)
    if too_long:
        more = f" and {len(too_long) - _SHOWN:,} more" if len(too_long) > _SHOWN else ""
        report(
            f"left out {len(too_long):,} conversations of more than {room:,} tokens (model.context_length "
            f"and one): {', '.join(too_long[:_SHOWN])}{more}"
        )
    if not found:
        raise DataError(f"a split must have a conversation of at most {room:,} tokens, and all are longer")
    ids = np.concatenate([each.ids for each in found])
    edges = np.append(0, np.cumsum([len(each.ids) for each in found]))
    marks = Marks(edges, np.concatenate([each.is_answer for each in found]).astype(np.int64))
    return Encoded(ids, own_sizes(tokenizer, ids)), marks


def batch_at(config: Config, store: Store, index: int, start: OrderStart) -> Batch:
    """Return the training batch with this index: rows of conversations of the training split."""
    return dialogue_batches.batch_at(
        store.tokens("train"),
        store.marks["train"],
        config.model.context_length,
        batch_size=config.train.batch_size,
        seed=config.train.seed,
        step=index,
        start=start,
    )


def evaluate(params: Tree, config: Config, store: Store) -> dict[str, float]:
    """Return loss, in nats per token of the assistant, and perplexity on the validation split."""
    tokens, marks = store.tokens("validation"), store.marks["validation"]
    size, context = config.train.eval_batch_size, config.model.context_length
    batches = list(dialogue_batches.scoring_batches(tokens, marks, context, size))
    found = []
    for batch in tracked(batches, "scoring"):
        nats = np.asarray(token_nats(params, config.model, batch))
        found.append(nats[batch.weights > 0].astype(np.float64))
    nats = np.concatenate(found)
    return {
        "loss": float(nats.mean()),
        "standard_error": float(nats.std() / np.sqrt(len(nats))),
        "perplexity": float(np.exp(nats.mean())),
    }


CONVERSATION = Task(
    NEXT_TOKEN.packing(),
    batch_at,
    evaluate,
    (
        Metric("validation loss", "{loss:.4f}", "± {standard_error:.3f} nats per token of the assistant"),
        Metric("perplexity", "{perplexity:.2f}"),
    ),
    "validation {loss:.3f} +- {standard_error:.3f} nats per token of the assistant, "
    "perplexity {perplexity:.1f}",
    writes_text=True,
    open_store=open_dialogues,
)
