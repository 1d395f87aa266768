"""Labelled texts as they lie in files: tables with a column of labels, and sentences of labelled words."""

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np

from llm_jax.base.errors import DataError
from llm_jax.config.run import Config
from llm_jax.data.labelled import Example, prepare_labelled
from llm_jax.data.store import Store
from llm_jax.tokenization.protocol import Tokenizer


def open_labelled(config: Config, report: Callable[[str], None], inherited: Tokenizer | None) -> Store:
    """Return the store of the labelled texts that a configuration names."""
    path = Path(config.data.corpus)
    examples = _words(path, config.task.label_column) if config.task.name == "tagging" else _texts(path)
    order = np.random.default_rng(config.task.split_seed).permutation(len(examples))
    test = int(len(order) * config.task.test_fraction)
    held = int(len(order) * config.data.validation_fraction)
    cut = {"test": order[:test], "validation": order[test : test + held], "train": order[test + held :]}
    splits = {name: [examples[at] for at in cut[name]] for name in ("train", "validation", "test")}
    return prepare_labelled(config, splits, path.stem, report, inherited)


def _texts(path: Path) -> list[Example]:
    lines = path.read_text("utf-8-sig").splitlines()
    rows = [line.split("\t", 1) for line in lines if "\t" in line]
    seen: set[str] = set()
    found = []
    for number, (label, text) in enumerate(rows, 1):
        if text not in seen and text.strip():
            seen.add(text)
            found.append(Example([text], [label], number))
    return found


def _words(path: Path, field: str) -> list[Example]:
    found, pieces, labels, space = [], [], [], ""
    for line in [*path.read_text().split("\n"), ""]:
        if not line.strip():
            if pieces:
                found.append(Example(pieces, labels, len(found) + 1))
            pieces, labels, space = [], [], ""
            continue
        fields = line.split("\t")
        if line.startswith("#") or not fields[0].isdigit():
            continue
        pieces.append(space + fields[1])
        labels.append(fields[3] if field != "entity" else fields[2])
        space = "" if "SpaceAfter=No" in line else " "
    return found
