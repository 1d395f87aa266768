"""The store of labelled texts: pieces of a text, each with its label, as token ids and marks.

A text to classify is one piece; a sentence to tag has a piece for each word. A piece's label is marked at its
last token, where a decoder has read all of it.
"""

import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from llm_jax.base.bars import tracked
from llm_jax.base.errors import DataError, UserError
from llm_jax.base.files import remove_left
from llm_jax.config.run import Config, DataConfig
from llm_jax.data.factors import Factors, Fields, find_factors
from llm_jax.data.overlap import verbatim_share
from llm_jax.data.splits import id_facts
from llm_jax.data.store import VERSION, Marks, Store, open_store, said_of_tokenizer, write_split
from llm_jax.data.store_files import UNFINISHED, write_folder, write_numbers
from llm_jax.tokenization.byte_pair import RankTokenizer, named_tokenizer
from llm_jax.tokenization.compact import compact
from llm_jax.tokenization.plain import ByteTokenizer, CharacterTokenizer
from llm_jax.tokenization.protocol import Tokenizer, fingerprint
from llm_jax.tokenization.text_bytes import Encoded, own_sizes
from llm_jax.tokenization.train_bpe import train_bpe

Report = Callable[[str], None]


class Example(NamedTuple):
    """A labelled text."""

    pieces: Sequence[str]  # none is empty; joined they are the text
    labels: Sequence[str | None]  # one for each piece; None where none is told
    row: int  # its place in the file, for messages
    fields: Fields = MappingProxyType({})  # what else is known of each piece

    @property
    def text(self) -> str:
        """The whole of it."""
        return "".join(self.pieces)


class Source(NamedTuple):
    """Where labelled texts are from."""

    name: str  # of the file, without its end
    texts: tuple[str, ...] = ()  # columns of a table that are the text
    label: str = ""  # column of a table, or field of words
    factors: tuple[str, ...] = ()  # fields of words that are read beside their tokens


Splits = Mapping[str, Sequence[Example]]  # "train", "validation" and "test"


def prepare_labelled(
    config: Config, splits: Splits, source: Source, report: Report, inherited: Tokenizer | None = None
) -> Store:
    """Return the store of labelled texts: made when it is not there, else verified and opened.

    Args:
        config: tokenizer, and where stores lie.
        splits: the texts, of the splits that there are; a label is known if one in training has it.
        source: what they come from.
        report: gets a line on what was left out.
        inherited: the tokenizer, where the configuration says that.

    Raises:
        DataError: a split is empty or has no label that is known, or a store is there and damaged.
        UserError: the tokenizer cannot be had.
    """
    data = config.data
    if inherited is None and data.tokenizer == "inherited":
        raise UserError("tokenizer = inherited needs a model that brings one: train --train.init_from DIR")
    settings = {
        "version": VERSION,
        "tokenizer": data.tokenizer if inherited is None else fingerprint(inherited),
        "bpe_vocab_size": data.bpe_vocab_size if data.tokenizer == "bpe" else None,
        "compact": [data.compact_min_count, data.rare_ids] if data.compact_vocab else None,
        "text_sha256": _digest(splits, source.factors),
    }
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()
    path = data.prepared / f"{source.name}-{data.tokenizer}-{digest[:12]}"
    remove_left(data.prepared, UNFINISHED)
    if not os.path.lexists(path):
        _write(path, data, splits, source, settings, inherited)
        report(f"prepared {path}")
    return open_store(path)


def _digest(splits: Splits, factors: Sequence[str]) -> str:
    told = hashlib.sha256()
    for name, examples in splits.items():
        for each in examples:
            beside = [[factor, list(each.fields[factor])] for factor in factors]
            told.update(json.dumps([name, each.pieces, each.labels, *beside]).encode())
    return told.hexdigest()


def _write(
    path: Path,
    data: DataConfig,
    splits: Splits,
    source: Source,
    settings: Mapping[str, Any],
    inherited: Tokenizer | None,
) -> None:
    name = source.name
    labels = sorted({label for each in splits["train"] for label in each.labels if label is not None})
    if len(labels) < 2:
        raise DataError(f"{name} must have at least 2 labels in training, got {labels}")
    for split, examples in splits.items():
        if not examples:
            raise DataError(f"the {split} split of {name} must have at least 1 text, got none")
    tokenizer = inherited or _own_tokenizer(data, splits["train"])
    number = {label: at + 1 for at, label in enumerate(labels)}
    factors = find_factors(source.factors, [each.fields for each in splits["train"]])
    encoded = {split: _encode(tokenizer, examples, number, factors) for split, examples in splits.items()}
    raw = {split: "\n".join(each.text for each in examples) for split, examples in splits.items()}
    facts = {"names": labels, "texts": source.texts, "label": source.label, "factors": factors.to_list()}
    write_marked(path, name, settings, encoded, raw, tokenizer, {"labels": facts})


def write_marked(
    path: Path,
    name: str,
    settings: Mapping[str, Any],
    encoded: Mapping[str, tuple[Encoded, Marks]],
    raw: Mapping[str, str],
    tokenizer: Tokenizer,
    facts: Mapping[str, Any],
) -> None:
    """Write a store of texts with marks.

    Args:
        path: where it will be.
        name: what it is of.
        settings: what it follows from.
        encoded: tokens and marks of each split.
        raw: the text of each split.
        tokenizer: that made the tokens.
        facts: what the manifest says besides; "labels" says what marks stand for.
    """

    def fill(working: Path) -> dict[str, Any]:
        held_out = encoded["validation"][0]
        marks = {
            split: {
                field: write_numbers(
                    working / f"{split}_{field}.bin", numbers.ravel(), int(numbers.max()) + 1
                )
                for field, numbers in each._asdict().items()
                if numbers is not None
            }
            for split, (_, each) in encoded.items()
        }
        return {
            "version": VERSION,
            "settings": settings,
            "corpus": name,
            "base": id_facts(*(encoded[split][0].ids for split in ("train", "validation"))),
            "splits": {
                split: write_split(working, split, each, tokenizer) for split, (each, _) in encoded.items()
            },
            "sizes": write_numbers(
                working / "validation_sizes.bin", held_out.sizes, int(held_out.sizes.max()) + 1
            ),
            "alters_text": False,
            "validation_in_training": verbatim_share(
                *(raw[each].encode() for each in ("train", "validation"))
            ),
            **facts,
            "labels": {**facts["labels"], "splits": marks},
            **said_of_tokenizer(tokenizer),
        }

    write_folder(path, fill)


def _own_tokenizer(data: DataConfig, training: Sequence[Example]) -> Tokenizer:
    """The tokenizer that the configuration describes, made of the training split's texts alone."""
    if data.tokenizer == "bytes":
        return ByteTokenizer()
    if data.tokenizer in ("bpe", "characters"):
        text = "\n".join(each.text for each in training)
        return train_bpe(text, data.bpe_vocab_size) if data.tokenizer == "bpe" else CharacterTokenizer(text)
    base = named_tokenizer(data.tokenizer)
    if not data.compact_vocab:
        return base
    assert isinstance(base, RankTokenizer)
    ids = np.concatenate([base.encode(piece) for each in training for piece in each.pieces])
    return compact(base, ids, data.compact_min_count, data.rare_ids)


def encode_pieces(tokenizer: Tokenizer, pieces: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Return a text's ids [N] int32, and the place of the last token of each piece, [P]."""
    ids = [tokenizer.encode(piece) for piece in pieces]
    return np.concatenate(ids), np.cumsum([len(each) for each in ids]) - 1


def _encode(
    tokenizer: Tokenizer, examples: Sequence[Example], number: Mapping[str, int], factors: Factors
) -> tuple[Encoded, Marks]:
    ids, targets, lengths, beside = [], [], [], []
    for each in tracked(examples, "cutting the texts into tokens"):
        tokens, ends = encode_pieces(tokenizer, each.pieces)
        target = np.zeros(len(tokens), np.int64)
        target[ends] = [number.get(label, 0) if label else 0 for label in each.labels]
        ids.append(tokens)
        targets.append(target)
        lengths.append(len(tokens))
        if factors.each:
            beside.append(factors.encode(each.fields, np.diff(ends, prepend=-1).tolist()))
    joined = np.concatenate(ids)
    edges = np.append(0, np.cumsum(lengths))
    marks = Marks(edges, np.concatenate(targets), np.concatenate(beside) if beside else None)
    return Encoded(joined, own_sizes(tokenizer, joined)), marks
