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
from typing import Any, NamedTuple

import numpy as np

from llm_jax.base.errors import DataError, UserError
from llm_jax.base.files import new_folder, remove_left
from llm_jax.config.cleaning import CleaningConfig
from llm_jax.config.run import DataConfig
from llm_jax.data.corpora import Corpus, configured_corpus, documents_digest, text_digest
from llm_jax.data.overlap import verbatim_share
from llm_jax.data.splits import SPLITS, are_apart, tokenize
from llm_jax.tokenization.end_of_text import end_of_text
from llm_jax.tokenization.from_dict import tokenizer_from_dict
from llm_jax.tokenization.protocol import Tokenizer, decode_bytes, fingerprint
from llm_jax.tokenization.start_tokens import Named

VERSION = 3
_UNFINISHED = ".preparing-"
_MUCH = 0.05  # of a validation text that stands in the training text: less comes in honest collections


class Store(NamedTuple):
    """An opened and verified store."""

    path: Path
    manifest: dict[str, Any]
    tokenizer: Tokenizer
    shards: dict[str, np.ndarray]
    sizes: np.ndarray  # bytes of the text that each validation token stands for, [M] unsigned

    def tokens(self, split: str) -> np.ndarray:
        """Return token ids of "train" or "validation", [N] unsigned integers, read-only."""
        return self.shards[split]

    def num_bytes(self, split: str) -> int:
        """Return UTF-8 bytes of the text that a split's tokens stand for."""
        return self.manifest["splits"][split]["bytes"]

    @property
    def alters_text(self) -> bool:
        """Whether the validation split's tokens decode to other bytes than the text has there."""
        return self.manifest["alters_text"]

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
    remove_left(config.prepared, _UNFINISHED)
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
        _require(
            path,
            fingerprint(tokenizer) == manifest["tokenizer_sha256"],
            "the tokenizer is not the one it was made with",
        )
        _require(path, tokenizer.vocab_size == manifest["vocab_size"], "vocab_size is not the tokenizer's")
        shards = {
            split: _open_shard(path, split, manifest["splits"][split], manifest["vocab_size"])
            for split in SPLITS
        }
        sizes = _open_numbers(path / "validation_sizes.bin", manifest["sizes"])
        wanted = (manifest["splits"]["validation"][name] for name in ("tokens", "bytes"))
        _require(
            path, (len(sizes), int(np.sum(sizes))) == tuple(wanted), "validation_sizes.bin does not add up"
        )
        _require(path, type(manifest["alters_text"]) is bool, "alters_text must be true or false")
        is_share = 0 <= manifest["validation_in_training"] <= 1
        _require(path, is_share, "validation_in_training must be from 0 to 1")
    except (KeyError, TypeError) as error:
        raise DataError(f"store {path} is damaged: manifest.json lacks or garbles {error}; {_MEND}") from None
    return Store(path, manifest, tokenizer, shards, sizes)


_MEND = "delete the folder to prepare it again"
_ELSEWHERE = "let this user read it, or give another folder with --prepared (train: --data.prepared)"


def _require(path: Path, holds: bool, fault: str) -> None:
    if not holds:
        raise DataError(f"store {path} is damaged: {fault}; {_MEND}")


def _read_manifest(path: Path) -> dict[str, Any]:
    try:
        manifest = json.loads(_read(path / "manifest.json"))
    except (ValueError, RecursionError) as error:
        raise DataError(f"store {path} is damaged: manifest.json cannot be read ({error}); {_MEND}") from None
    _require(path, isinstance(manifest, dict), "manifest.json must hold an object")
    if manifest.get("version") != VERSION:
        raise DataError(f"store {path} must have version {VERSION}, got {manifest.get('version')}; {_MEND}")
    return manifest


def _read(file: Path) -> bytes:
    """A file's bytes; what is not there is damage, but not what only cannot be read now or by this user."""
    try:
        return file.read_bytes()
    except (FileNotFoundError, IsADirectoryError):
        fault = f"store {file.parent} is damaged: {file.name} cannot be read (it is not there); {_MEND}"
    except OSError as error:
        fault = f"store {file.parent} cannot be read: {file.name}: {error.strerror}; {_ELSEWHERE}"
    raise DataError(fault)


def _open_shard(path: Path, split: str, facts: Mapping[str, Any], vocab_size: int) -> np.ndarray:
    file = path / f"{split}.bin"
    tokens = _open_numbers(file, facts)
    _require(
        path, int(tokens.max()) < vocab_size, f"{file.name} has an id outside the vocabulary ({vocab_size})"
    )
    return tokens


def _open_numbers(file: Path, facts: Mapping[str, Any]) -> np.ndarray:
    path = file.parent
    _require(path, facts["dtype"] in ("<u2", "<u4"), f"{file.name} has dtype {facts['dtype']}")
    raw = _read(file)
    wanted = facts["tokens"] * np.dtype(facts["dtype"]).itemsize
    _require(path, len(raw) == wanted, f"{file.name} must have {wanted} bytes, got {len(raw)}")
    _require(
        path,
        hashlib.sha256(raw).hexdigest() == facts["sha256"],
        f"the bytes of {file.name} are not those written",
    )
    return np.memmap(file, facts["dtype"], mode="r")


def _write_numbers(file: Path, numbers: np.ndarray, limit: int) -> dict[str, Any]:
    """Writes whole numbers below the limit; gives what the manifest says of them."""
    dtype = "<u2" if limit <= 1 << 16 else "<u4"
    raw = numbers.astype(dtype).tobytes()
    _write_durably(file, raw)
    return {"tokens": len(numbers), "dtype": dtype, "sha256": hashlib.sha256(raw).hexdigest()}


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
    facts = {}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with new_folder(path.parent, _UNFINISHED) as working:
            for split, (tokens, sizes) in splits.items():
                facts[split] = _write_numbers(working / f"{split}.bin", tokens, tokenizer.vocab_size)
                facts[split]["bytes"] = int(sizes.sum())
            largest = int(held_out.sizes.max())
            manifest = {
                "version": VERSION,
                "settings": settings,
                "corpus": corpus.name,
                "base": base_facts,
                "splits": facts,
                "sizes": _write_numbers(working / "validation_sizes.bin", held_out.sizes, largest + 1),
                "alters_text": decode_bytes(tokenizer, held_out.ids) != raw[cut:],
                "validation_in_training": verbatim_share(raw[:cut], raw[cut:]),
                "vocab_size": tokenizer.vocab_size,
                "tokenizer_sha256": fingerprint(tokenizer),
                "tokenizer": tokenizer.to_dict(),
            }
            _write_durably(working / "manifest.json", json.dumps(manifest).encode())
            _move_into_place(working, path)
    except OSError as error:
        raise DataError(f"store {path} cannot be written: {error}") from None


def _write_durably(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _move_into_place(working: Path, path: Path) -> None:
    try:
        working.rename(path)
    except OSError:
        if not path.exists():  # Another process was faster; its store is as good as ours.
            raise
