"""The token store: a text as token ids on disk, with a manifest that vouches for every byte.

A folder holds `train.bin` and `validation.bin` (flat little-endian integers), `validation_sizes.bin` (the
bytes of the text that each validation token stands for) and `manifest.json`. Its name carries a digest of the
settings and of the text, so other settings never meet; what is damaged is refused by name.
"""

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from llm_jax.config import DataConfig
from llm_jax.data.bpe import train_bpe
from llm_jax.data.compact import compact
from llm_jax.data.corpora import Corpus, read_corpus, text_digest
from llm_jax.data.text_bytes import Encoded, encode_sized, own_sizes
from llm_jax.data.tokenizers import (
    ByteTokenizer,
    CharacterTokenizer,
    RankTokenizer,
    Tokenizer,
    decode_bytes,
    fingerprint,
    named_tokenizer,
    tokenizer_from_dict,
    utf8,
)
from llm_jax.data.unfinished import new_folder, remove_left
from llm_jax.errors import DataError, UserError

VERSION = 2
SPLITS = ("train", "validation")
_UNFINISHED = ".preparing-"


class Store(NamedTuple):
    """An opened and verified store."""

    path: Path
    manifest: dict[str, Any]
    tokenizer: Tokenizer
    shards: dict[str, np.ndarray]
    sizes: np.ndarray  # bytes of the text that each validation token stands for, [M] unsigned

    def tokens(self, split: str) -> np.ndarray:
        """Token ids of "train" or "validation", [N] unsigned integers, read-only."""
        return self.shards[split]

    def num_bytes(self, split: str) -> int:
        """UTF-8 bytes of the text that a split's tokens stand for."""
        return self.manifest["splits"][split]["bytes"]

    @property
    def alters_text(self) -> bool:
        """Whether the validation split's tokens decode to other bytes than the text has there."""
        return self.manifest["alters_text"]

    @property
    def fingerprint(self) -> str:
        """Digest of tokenizer and tokens: the data's identity in checkpoints."""
        parts = [self.manifest["tokenizer_sha256"], *(self.manifest["splits"][s]["sha256"] for s in SPLITS)]
        return hashlib.sha256(" ".join(parts).encode()).hexdigest()


def prepare_store(
    config: DataConfig, report: Callable[[str], None], inherited: Tokenizer | None = None
) -> Store:
    """The store of a corpus under these settings: made when it is not there, else verified and opened.

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
    corpus = read_corpus(config.corpus, downloads=config.downloads, errors=config.errors, report=report)
    settings = {
        "version": VERSION,
        "tokenizer": config.tokenizer if inherited is None else fingerprint(inherited),
        "bpe_vocab_size": config.bpe_vocab_size if config.tokenizer == "bpe" else None,
        "compact": [config.compact_min_count, config.rare_ids] if config.compact_vocab else None,
        "validation_fraction": config.validation_fraction,
        "text_sha256": text_digest(corpus.text),
    }
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()
    path = config.prepared / f"{corpus.name}-{config.tokenizer}-{digest[:12]}"
    remove_left(config.prepared, _UNFINISHED)
    if not os.path.lexists(path):
        _write_store(path, config, corpus, settings, inherited)
        report(f"prepared {path}")
    return open_store(path)


def open_store(path: Path) -> Store:
    """Opens a store after looking at every byte of it.

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
    tokenizer, base_facts, splits = _tokenize(corpus.text, config, inherited)
    for split, (tokens, _) in splits.items():
        if len(tokens) < 2:
            raise DataError(
                f"the {split} split of {config.corpus} must have at least 2 tokens, got {len(tokens)}"
            )
    held_out = splits["validation"]
    given_back = (
        decode_bytes(tokenizer, held_out.ids) == utf8(corpus.text)[int(splits["train"].sizes.sum()) :]
    )
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
                "alters_text": not given_back,
                "vocab_size": tokenizer.vocab_size,
                "tokenizer_sha256": fingerprint(tokenizer),
                "tokenizer": tokenizer.to_dict(),
            }
            _write_durably(working / "manifest.json", json.dumps(manifest).encode())
            _move_into_place(working, path)
    except OSError as error:
        raise DataError(f"store {path} cannot be written: {error}") from None


def _tokenize(
    text: str, config: DataConfig, inherited: Tokenizer | None
) -> tuple[Tokenizer, dict[str, float], dict[str, Encoded]]:
    """The tokenizer, facts of its ids before compaction, and both splits.

    A ready-made tokenizer's ids are split by position; one that is trained here sees the training text alone,
    so the text is split.
    """
    share = 1 - config.validation_fraction
    if config.tokenizer in ("bpe", "characters", "bytes"):
        cut = int(len(text) * share)
        parts = (text[:cut], text[cut:])
        trained: dict[str, Callable[[], Tokenizer]] = {
            "bpe": lambda: train_bpe(parts[0], config.bpe_vocab_size),
            "characters": lambda: CharacterTokenizer(parts[0]),
            "bytes": ByteTokenizer,
        }
        tokenizer = trained[config.tokenizer]()
        splits = [encode_sized(tokenizer, part) for part in parts]
        return tokenizer, _id_facts(*(ids for ids, _ in splits)), dict(zip(SPLITS, splits, strict=True))
    base = inherited or named_tokenizer(config.tokenizer)
    ids, sizes = encode_sized(base, text)
    cut = int(len(ids) * share)
    facts = _id_facts(ids[:cut], ids[cut:])
    if not config.compact_vocab:
        splits = [Encoded(ids[:cut], sizes[:cut]), Encoded(ids[cut:], sizes[cut:])]
        return base, facts, dict(zip(SPLITS, splits, strict=True))
    assert isinstance(base, RankTokenizer)  # The configuration does not cut down an inherited one.
    tokenizer = compact(base, ids[:cut], config.compact_min_count, config.rare_ids)
    spelt = [tokenizer.from_base(part) for part in (ids[:cut], ids[cut:])]
    splits = [Encoded(part, own_sizes(tokenizer, part)) for part in spelt]
    return tokenizer, facts, dict(zip(SPLITS, splits, strict=True))


def _id_facts(train: np.ndarray, validation: np.ndarray) -> dict[str, float]:
    """Counts of a text's ids, and the share of validation ids that training lacks."""
    ids = np.concatenate([train, validation])
    return {
        "tokens": len(ids),
        "distinct_tokens": len(np.unique(ids)),
        "largest_id": int(ids.max(initial=-1)),
        "validation_tokens_never_seen": float(np.mean(~np.isin(validation, train)))
        if len(validation)
        else 0.0,
    }


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
