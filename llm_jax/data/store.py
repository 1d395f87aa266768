"""The token store: a text as token ids on disk, with a manifest that vouches for every byte.

A folder holds `train.bin` and `validation.bin` (flat little-endian integers), `validation_sizes.bin` (the
bytes of the text that each validation token stands for) and `manifest.json`. Its name carries a digest of the
settings and of the text, so other settings never meet; what is damaged is refused by name.
"""

import dataclasses
import hashlib
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from llm_jax.base.errors import DataError, UserError
from llm_jax.base.files import remove_left
from llm_jax.config.cleaning import CleaningConfig
from llm_jax.config.run import DataConfig
from llm_jax.data.corpora import Corpus, configured_corpus, documents_digest, text_digest
from llm_jax.data.factors import Factors
from llm_jax.data.overlap import verbatim_share
from llm_jax.data.splits import SPLITS, are_apart, tokenize
from llm_jax.data.store_files import (
    MEND,
    UNFINISHED,
    open_numbers,
    read_whole,
    require_whole,
    write_folder,
    write_numbers,
)
from llm_jax.tokenization.end_of_text import end_of_text
from llm_jax.tokenization.from_dict import tokenizer_from_dict
from llm_jax.tokenization.protocol import Tokenizer, decode_bytes, fingerprint
from llm_jax.tokenization.start_tokens import Named
from llm_jax.tokenization.text_bytes import Encoded

VERSION = 3
_MUCH = 0.05  # of a validation text that stands in the training text: less comes in honest collections


class Marks(NamedTuple):
    """What is known of a split's tokens where texts are labelled."""

    edges: np.ndarray  # [M + 1] unsigned, where each of M texts begins, and the end
    # [N] unsigned: for the token where a label is read 1 + its number; of conversations 1 for tokens that are
    # learnt; 0 for others.
    targets: np.ndarray
    factors: np.ndarray | None = None  # [N, S] unsigned, numbers of what is known of each token's word


class Store(NamedTuple):
    """An opened and verified store."""

    path: Path
    manifest: dict[str, Any]
    tokenizer: Tokenizer
    shards: dict[str, np.ndarray]
    sizes: np.ndarray  # bytes of the text that each validation token stands for, [M] unsigned
    labels: tuple[str, ...] = ()  # what texts, or words in them, are labelled with; () for a plain text
    marks: Mapping[str, Marks] = MappingProxyType({})  # by split, where there are labels

    def tokens(self, split: str) -> np.ndarray:
        """Return token ids of "train" or "validation" (of labelled texts "test", too), [N] unsigned integers,
        read-only.
        """
        return self.shards[split]

    def num_bytes(self, split: str) -> int:
        """Return UTF-8 bytes of the text that a split's tokens stand for."""
        return self.manifest["splits"][split]["bytes"]

    @property
    def alters_text(self) -> bool:
        """Whether the validation split's tokens decode to other bytes than the text has there."""
        return self.manifest["alters_text"]

    @property
    def factors(self) -> Factors:
        """What tokens of labelled words are read with."""
        return Factors.from_list(self.manifest.get("labels", {}).get("factors", ()))

    @property
    def end_of_text(self) -> Named | None:
        """The token that stands between documents; None where none does."""
        return end_of_text(self.tokenizer) if "documents" in self.manifest["settings"] else None

    @property
    def fingerprint(self) -> str:
        """Digest of tokenizer and tokens: the data's identity in checkpoints."""
        return fingerprint_of(self.manifest)


def fingerprint_of(manifest: Mapping[str, Any]) -> str:
    """Return `Store.fingerprint` of a manifest that is not verified yet."""
    parts = [manifest["tokenizer_sha256"], *(manifest["splits"][split]["sha256"] for split in SPLITS)]
    if "labels" in manifest:
        parts.append(json.dumps(manifest["labels"], sort_keys=True))
    return hashlib.sha256(" ".join(parts).encode()).hexdigest()


def prepare_store(
    config: DataConfig, report: Callable[[str], None], inherited: Tokenizer | None = None
) -> Store:
    """Return the store of a corpus under these settings: made when it is not there, else verified and opened.

    Args:
        config: corpus, tokenizer and split.
        report: gets one line a remark.
        inherited: the tokenizer, where the configuration says that.

    Raises:
        DataError: the text cannot be used, or a store is there and damaged.
        UserError: the tokenizer cannot be had.
    """
    if inherited is None and config.tokenizer == "inherited":
        raise UserError("tokenizer = inherited needs a model that brings one: train --train.init_from DIR")
    assert inherited is None or config.tokenizer == "inherited"
    corpus = configured_corpus(config, report)
    apart = are_apart(config, inherited, of_records=corpus.of_records)
    settings = {
        "version": VERSION,
        "tokenizer": config.tokenizer if inherited is None else fingerprint(inherited),
        "bpe_vocab_size": config.bpe_vocab_size if config.tokenizer == "bpe" else None,
        "compact": [config.compact_min_count, config.rare_ids] if config.compact_vocab else None,
        "validation_fraction": config.validation_fraction,
        "text_sha256": documents_digest(corpus.documents) if apart else text_digest(corpus.text),
    } | ({"documents": len(corpus.documents)} if apart else {})
    if config.clean != CleaningConfig():
        settings["clean"] = dataclasses.asdict(config.clean)
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()
    path = config.prepared / f"{corpus.name}-{config.tokenizer}-{digest[:12]}"
    remove_left(config.prepared, UNFINISHED)
    if not os.path.lexists(path):
        _write_store(path, config, corpus, settings, inherited)
        report(f"prepared {path}")
    store = open_store(path)
    if (share := store.manifest["validation_in_training"]) >= _MUCH:
        report(
            f"warning: {share:.0%} of the validation text also stands in the training text, word for word, "
            "so scores on it say little of new text; leave out files and passages that come twice"
        )
    return store


def open_store(path: Path) -> Store:
    """Open a store after looking at every byte of it.

    Raises:
        DataError: something in it is missing, damaged, or not what the manifest says.
    """
    manifest = _read_manifest(path)
    try:
        tokenizer = tokenizer_from_dict(manifest["tokenizer"])
        require_whole(
            path,
            fingerprint(tokenizer) == manifest["tokenizer_sha256"],
            "the tokenizer is not the one it was made with",
        )
        require_whole(
            path, tokenizer.vocab_size == manifest["vocab_size"], "vocab_size is not the tokenizer's"
        )
        shards = {
            split: _open_shard(path, split, facts, manifest["vocab_size"])
            for split, facts in manifest["splits"].items()
        }
        labels = manifest.get("labels", {"names": ()})
        marks = {
            split: _open_marks(path, split, labels, len(shards[split])) for split in labels.get("splits", {})
        }
        sizes = open_numbers(path / "validation_sizes.bin", manifest["sizes"])
        wanted = (manifest["splits"]["validation"][name] for name in ("tokens", "bytes"))
        require_whole(
            path, (len(sizes), int(np.sum(sizes))) == tuple(wanted), "validation_sizes.bin does not add up"
        )
        require_whole(path, type(manifest["alters_text"]) is bool, "alters_text must be true or false")
        is_share = 0 <= manifest["validation_in_training"] <= 1
        require_whole(path, is_share, "validation_in_training must be from 0 to 1")
    except (KeyError, TypeError) as error:
        raise DataError(f"store {path} is damaged: manifest.json lacks or garbles {error}; {MEND}") from None
    return Store(path, manifest, tokenizer, shards, sizes, tuple(labels["names"]), marks)


def _read_manifest(path: Path) -> dict[str, Any]:
    try:
        manifest = json.loads(read_whole(path / "manifest.json"))
    except (ValueError, RecursionError) as error:
        raise DataError(f"store {path} is damaged: manifest.json cannot be read ({error}); {MEND}") from None
    require_whole(path, isinstance(manifest, dict), "manifest.json must hold an object")
    if manifest.get("version") != VERSION:
        raise DataError(f"store {path} must have version {VERSION}, got {manifest.get('version')}; {MEND}")
    return manifest


def _open_shard(path: Path, split: str, facts: Mapping[str, Any], vocab_size: int) -> np.ndarray:
    file = path / f"{split}.bin"
    tokens = open_numbers(file, facts)
    require_whole(
        path, int(tokens.max()) < vocab_size, f"{file.name} has an id outside the vocabulary ({vocab_size})"
    )
    return tokens


def _open_marks(path: Path, split: str, labels: Mapping[str, Any], num_tokens: int) -> Marks:
    """Where the texts of a split begin and what their tokens are labelled with."""
    facts = labels["splits"][split]
    edges, targets, *beside = (
        open_numbers(path / f"{split}_{name}.bin", facts[name]) for name in Marks._fields if name in facts
    )
    holds = len(targets) == num_tokens and int(targets.max(initial=0)) <= max(1, len(labels["names"]))
    require_whole(path, holds, f"{split}_targets.bin does not fit the tokens and labels")
    rises = (
        len(edges) > 1 and not edges[0] and edges[-1] == num_tokens and bool(np.all(edges[1:] > edges[:-1]))
    )
    require_whole(path, rises, f"{split}_edges.bin must rise from 0 to the number of tokens")
    factors = Factors.from_list(labels.get("factors", ()))
    if not factors.each:
        return Marks(edges, targets)
    fits = [len(each) == num_tokens * factors.slots and int(each.max()) < factors.values for each in beside]
    require_whole(path, fits == [True], f"{split}_factors.bin does not fit the tokens and fields")
    return Marks(edges, targets, beside[0].reshape(num_tokens, factors.slots))


def _write_store(
    path: Path, config: DataConfig, corpus: Corpus, settings: dict[str, Any], inherited: Tokenizer | None
) -> None:
    apart = "documents" in settings
    tokenizer, base_facts, splits, raw = tokenize(corpus.documents, config, inherited, apart=apart)
    for split, (tokens, _) in splits.items():
        if len(tokens) < 2:
            raise DataError(
                f"the {split} split of {config.corpus} must have at least 2 tokens, got {len(tokens)}"
            )
    held_out = splits["validation"]
    cut = int(splits["train"].sizes.sum())

    def fill(working: Path) -> dict[str, Any]:
        largest = int(held_out.sizes.max())
        return {
            "version": VERSION,
            "settings": settings,
            "corpus": corpus.name,
            "base": base_facts,
            "splits": {split: write_split(working, split, each, tokenizer) for split, each in splits.items()},
            "sizes": write_numbers(working / "validation_sizes.bin", held_out.sizes, largest + 1),
            "alters_text": decode_bytes(tokenizer, held_out.ids) != raw[cut:],
            "validation_in_training": verbatim_share(raw[:cut], raw[cut:]),
            **said_of_tokenizer(tokenizer),
        }

    write_folder(path, fill)


def write_split(working: Path, split: str, encoded: Encoded, tokenizer: Tokenizer) -> dict[str, Any]:
    """Write a split's ids; return what the manifest says of them."""
    facts = write_numbers(working / f"{split}.bin", encoded.ids, tokenizer.vocab_size)
    return facts | {"bytes": int(encoded.sizes.sum())}


def said_of_tokenizer(tokenizer: Tokenizer) -> dict[str, Any]:
    """Return what a manifest says of its tokenizer."""
    return {
        "vocab_size": tokenizer.vocab_size,
        "tokenizer_sha256": fingerprint(tokenizer),
        "tokenizer": tokenizer.to_dict(),
    }
