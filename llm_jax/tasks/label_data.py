"""The data of tasks that tell labels: read, split and cut into tokens."""

import dataclasses
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from llm_jax.base.errors import DataError
from llm_jax.config.run import Config
from llm_jax.config.task import TaskConfig
from llm_jax.data.grouped_splits import split_rows
from llm_jax.data.label_files import read_examples
from llm_jax.data.labelled import Example, Source, prepare_labelled
from llm_jax.data.store import Store
from llm_jax.tasks.factors import names_of, read_fields, words_of
from llm_jax.tasks.task import Inherited
from llm_jax.tokenization.protocol import decode


def open_labelled(config: Config, report: Callable[[str], None], inherited: Inherited) -> Store:
    """Return the store of the labelled texts that a configuration names.

    Raises:
        DataError: they cannot be read, or are too few.
        UserError: the tokenizer cannot be had.
    """
    examples, source = read_labelled(config, report)
    if not examples:
        raise DataError(f"{source.name} must have texts with a label, found none")
    held, test = config.data.validation_fraction, config.task.test_fraction
    # A sentence has labels of many words: it counts as having none, so that all are dealt out alike.
    labels = [(each.labels[0] if len(each.pieces) == 1 else None) or "" for each in examples]
    split = split_rows(
        [each.text for each in examples], labels, (1 - held - test, held, test), config.task.split_seed
    )
    report(str(split.report))
    names = ("train", "validation", "test") if test else ("train", "validation")
    splits = {name: [examples[row] for row in getattr(split, name)] for name in names}
    if config.task.name == "classification" and source.factors:
        splits = {name: [_in_words(config.task, each) for each in some] for name, some in splits.items()}
    return prepare_labelled(config, splits, source, report, inherited.tokenizer)


def read_labelled(config: Config, report: Callable[[str], None]) -> tuple[list[Example], Source]:
    """Return `read_examples`, each with the fields that the task's models read.

    Raises:
        DataError: the file cannot be read, or has not got a field.
        UserError: `task.factors` is not as it must be, or a library is missing.
    """
    examples, source = read_examples(config, report)
    task = dataclasses.replace(config.task, label_column=source.label)
    names = names_of(task)
    if not names or task.name == "classification":  # whose words are found later
        return examples, source._replace(factors=tuple(names))
    fields = (read_fields(names, task, each.pieces, each.fields, each.row) for each in examples)
    found = [each._replace(fields=read) for each, read in zip(examples, fields, strict=True)]
    return found, source._replace(factors=tuple(names))


def _in_words(task: TaskConfig, example: Example) -> Example:
    """A text to classify as its words with their fields; its label is told of the last."""
    words = words_of(example.text)
    labels = [*[None] * (len(words) - 1), *example.labels]
    return Example(words, labels, example.row, read_fields(names_of(task), task, words, {}, example.row))


class Labelled(NamedTuple):
    """A text of a store: its pieces, and the number of each one's label."""

    pieces: list[str]
    labels: np.ndarray  # [P]


def labelled_texts(store: Store, split: str) -> Iterator[Labelled]:
    """Yield the texts of a split, without what follows the last labelled piece of one."""
    tokens, (edges, targets, _) = store.tokens(split), store.marks[split]
    for begin, end in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
        ends = begin + np.flatnonzero(targets[begin:end]) + 1
        pieces = np.split(tokens[begin:end], ends - begin)[: len(ends)]
        yield Labelled(
            [decode(store.tokenizer, piece) for piece in pieces], targets[ends - 1].astype(int) - 1
        )
