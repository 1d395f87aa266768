"""Tokenizers of other people's models: the content of a Hugging Face `tokenizer.json`, run by `tokenizers`.

Only vocabularies that can spell bytes are taken, byte-level BPE as in GPT-2 and SentencePiece's BPE or
Unigram with byte fallback, since only they give every text back. Which ids a text must never make is decided
here; how a GGUF file says the same is in `gguf_tokenizer`, messages become text in `chat_template`.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers

from llm_jax.base.errors import DataError
from llm_jax.tokenization.libraries import LONG, call_library, call_on_text, one_line
from llm_jax.tokenization.protocol import utf8
from llm_jax.tokenization.start_tokens import tokens_around
from llm_jax.tokenization.train_bpe import bytes_of_letters

BYTE_PIECE = re.compile(r"<0x([0-9A-Fa-f]{2})>")
BYTE_PIECES = [f"<0x{byte:02X}>" for byte in range(256)]
# How markers are written. Files declare some of them as common words, so a declaration alone is not trusted.
MARKER = re.compile(r"<\S+>|\[\S+\]")


class FileTokenizer:
    """The tokenizer that a `tokenizer.json` describes, for text alone: no template, and `start_ids` apart.

    What holds of all bytes of `encode(text)`, joined:

    - byte-level BPE: they are the text as the file's own normalizer leaves it (Qwen's composes accents, most
      have none), without bytes that the vocabulary has no id for (some lack rare control characters, which
      the model has never seen);
    - byte fallback: the same, with "▁" read as a space;
    - where the file puts a space before a text, as SentencePiece does, they begin with that space, and every
      added word that is found in a text is followed by another. Files that do so by a `Metaspace` add none
      where the text has one, so the two texts have the same ids.

    Text never makes a special token, nor one that is written like a marker (`<think>`, `[INST]`) though the
    file calls it a common word: both are spelled with other ids. `token_id` is the way to them. Markers that
    are not special still have bytes, so what a model writes is seen.

    Raises:
        DataError: the content is damaged, or of a kind that cannot spell bytes.
    """

    name = "file"

    def __init__(self, content: Mapping[str, Any]):
        self._content = content
        self._vocabulary = _vocabulary(content)
        self._added = _added_tokens(content)
        self._byte_level = _spells_bytes_by_letters(content, self._vocabulary)
        ids = [*self._vocabulary.values(), *(token["id"] for token in self._added)]
        if not ids or min(ids) < 0 or max(ids) >= 2**31:
            raise DataError("the tokenizer's ids must be from 0 to 2**31 - 1, and there must be some")
        self._vocab_size = max(ids) + 1
        start = call_library("run its post_processor", tokens_around, content).start
        self.start_ids = tuple(token.id for token in start)
        if strange := [token for token in start if not 0 <= token.id < self._vocab_size]:
            raise DataError(f"the tokenizer puts {strange[0]} before every text, which it does not have")
        names = {token["content"]: f"\0 {token['id']} \0" for token in self._added if _is_marker(token)}
        self._names = names
        self._runner = call_library("load it", _runner, content, names)
        for token in self._added:
            content_here: str = token["content"]
            given = self._runner.token_to_id(names.get(content_here, content_here))
            if given != token["id"]:
                name = f"{token['content']!r:.80}"
                raise DataError(
                    f"the tokenizer's added token {name} says id {token['id']}, but it is {given}"
                )

    @property
    def vocab_size(self) -> int:
        """The largest id plus one, added tokens included."""
        return self._vocab_size

    def encode(self, text: str) -> np.ndarray:
        return np.array(_ids(self._runner, text), np.int32)

    def places(self, text: str) -> np.ndarray:
        """Return the characters that each token of a text stands for, [N, 2]: from and up to; they may
        overlap.
        """
        found = _encoding(self._runner, text)
        return np.fromiter(map(found.token_to_chars, range(len(found))), np.dtype((np.int64, 2)))

    def markers(self) -> list[dict[str, Any]]:
        """Return the added tokens that no text makes, as the file describes them."""
        return [token for token in self._added if _is_marker(token)]

    def encode_parts(self, parts: Sequence[str | int]) -> list[int]:
        """Return ids of texts between tokens that are given by their ids; each text is encoded as by
        `encode`, but for a space that the file puts before the very first one alone.
        """
        return [
            token
            for at, part in enumerate(parts)
            for token in (
                [part] if isinstance(part, int) else _ids(self._later_runner if at else self._runner, part)
            )
        ]

    def token_bytes(self, token: int) -> bytes:
        return self._bytes.get(token, b"")

    def token_id(self, content: str) -> int | None:
        """Return the id of a token by its content as the file writes it, special ones included."""
        added = next((token["id"] for token in self._added if token["content"] == content), None)
        return self._vocabulary.get(content) if added is None else added

    def to_dict(self) -> dict[str, Any]:
        return {"kind": "file", "content": self._content}

    @cached_property
    def _later_runner(self) -> tokenizers.Tokenizer:
        before = self._content.get("pre_tokenizer")
        after = _without_first_space(before)
        if after == before:
            return self._runner
        return call_library("load it", _runner, {**self._content, "pre_tokenizer": after}, self._names)

    @cached_property
    def _bytes(self) -> dict[int, bytes]:
        of_piece = bytes_of_letters if self._byte_level else _bytes_of_fallback
        every = {token: of_piece(piece) for piece, token in self._vocabulary.items()}
        for token in self._added:
            text = token["content"] if self._byte_level else token["content"].replace("▁", " ")
            every[token["id"]] = b"" if token.get("special") else utf8(text)
        return every


def read_tokenizer_file(path: Path) -> FileTokenizer:
    """Return the tokenizer of a `tokenizer.json`.

    Raises:
        DataError: there is no such file, or it is damaged, or of a kind that cannot spell bytes.
    """
    try:
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}); a tokenizer.json must be there") from None
    except (ValueError, RecursionError) as error:  # bytes that are not UTF-8 are a ValueError, too
        raise DataError(f"{path} must be a tokenizer.json, but is no JSON: {one_line(error)}") from None
    try:
        return FileTokenizer(content)
    except DataError as error:
        raise DataError(f"{path}: {error}") from None


def _vocabulary(content: Any) -> dict[str, int]:
    """Pieces of the model with their ids."""
    model = content.get("model") if isinstance(content, Mapping) else None
    if not isinstance(model, Mapping):
        raise DataError("a tokenizer.json must be an object with a model, and this is not")
    pieces, kind = model.get("vocab"), model.get("type", "BPE")
    if kind == "Unigram":
        if not isinstance(pieces, list) or not all(_is_scored(entry) for entry in pieces):
            raise DataError("the tokenizer's vocabulary must be pairs of a piece and a score")
        if type(model.get("unk_id")) is not int:
            raise DataError("the tokenizer's unk_id is missing, and Unigram needs it")
        vocabulary = {entry[0]: token for token, entry in enumerate(pieces)}
        if len(vocabulary) < len(pieces):
            raise DataError("the tokenizer's vocabulary has a piece twice")
        return vocabulary
    if kind != "BPE":
        raise DataError(f"the tokenizer's model must be BPE or Unigram, got {kind!r:.80}")
    if not isinstance(pieces, dict) or not all(type(token) is int for token in pieces.values()):
        raise DataError("the tokenizer's vocabulary must be an object of pieces and whole numbers")
    if len(set(pieces.values())) < len(pieces):
        raise DataError("the tokenizer's vocabulary has an id twice")
    for affix in ("continuing_subword_prefix", "end_of_word_suffix"):
        if model.get(affix):
            raise DataError(f"a tokenizer with {affix} is not supported, and this has {model[affix]!r:.80}")
    return pieces


def _is_scored(entry: Any) -> bool:
    return isinstance(entry, list) and [type(part) for part in entry] in ([str, float], [str, int])


def _added_tokens(content: Mapping[str, Any]) -> list[dict[str, Any]]:
    added = content.get("added_tokens") or []
    sound = isinstance(added, list) and all(
        isinstance(token, dict)
        and type(token.get("id")) is int
        and isinstance(token.get("content"), str)
        and isinstance(token.get("special", False), bool)
        for token in added
    )
    if not sound:
        raise DataError("the tokenizer's added_tokens must be a list of objects with id and content")
    return added


def _spells_bytes_by_letters(content: Mapping[str, Any], vocabulary: Mapping[str, int]) -> bool:
    """Whether bytes are GPT-2's letters (True) or pieces such as "<0xE4>" (False)."""
    kinds = {kind for part in ("normalizer", "pre_tokenizer") for kind in _kinds(content.get(part))}
    if "Precompiled" in kinds:
        raise DataError("a tokenizer with a table of replacements (Precompiled) is not supported")
    model = content["model"]
    if "ByteLevel" in kinds and model.get("type", "BPE") == "BPE":
        return True
    if model.get("byte_fallback") is not True:
        raise DataError("the tokenizer must be byte-level BPE or have byte_fallback, and this has neither")
    if missing := next((piece for piece in BYTE_PIECES if piece not in vocabulary), None):
        raise DataError(
            f"a tokenizer with byte_fallback must have a piece for every byte; {missing} is missing"
        )
    return False


def _kinds(component: Any) -> Iterator[Any]:
    """The type of a component and of all that it is a sequence of."""
    waiting = [component]
    while waiting:
        part = waiting.pop()
        if isinstance(part, Mapping):
            yield str(part.get("type"))
            for inner in (part.get("normalizers"), part.get("pretokenizers")):
                waiting.extend(inner if isinstance(inner, list) else ())


def _is_marker(token: Mapping[str, Any]) -> bool:
    return bool(token.get("special") or MARKER.fullmatch(token["content"]))


def _runner(content: Mapping[str, Any], names: Mapping[str, str]) -> tokenizers.Tokenizer:
    """What runs: the content with every marker renamed to what no text becomes, and nothing around the text.

    Not to look for markers in a text is not enough: one could still come as a piece of Unigram, as a whole
    word where merges are ignored, by merges, or for a byte without an id. The new names have spaces, which
    are letters or "▁" before they come to the vocabulary.
    """
    model = dict(content["model"])
    if isinstance(model["vocab"], dict):
        model["vocab"] = {names.get(piece, piece): token for piece, token in model["vocab"].items()}
        model["merges"] = [merge for merge in model.get("merges") or () if not _touches(merge, names)]
        model |= {"dropout": None, "unk_token": None}
    else:
        model["vocab"] = [[names.get(piece, piece), score] for piece, score in model["vocab"]]
    added = [
        token | {"content": names.get(token["content"], token["content"]), "special": _is_marker(token)}
        for token in _added_tokens(content)
    ]
    off = dict.fromkeys(("truncation", "padding", "post_processor", "decoder"))
    runner = tokenizers.Tokenizer.from_str(
        json.dumps({**content, **off, "model": model, "added_tokens": added})
    )
    runner.encode_special_tokens = True
    return runner


def _ids(runner: tokenizers.Tokenizer, text: str) -> list[int]:
    return _encoding(runner, text, fast=True).ids


def _encoding(runner: tokenizers.Tokenizer, text: str, fast: bool = False) -> tokenizers.Encoding:
    """A text's ids, and where they stand unless that is not asked for."""

    def encode(clean: str) -> tokenizers.Encoding:
        if len(clean) <= LONG:
            return runner.encode(clean, add_special_tokens=False)
        # Only what encodes several texts lets other threads run.
        encode_batch = runner.encode_batch_fast if fast else runner.encode_batch
        return encode_batch([clean], add_special_tokens=False)[0]

    return call_on_text("encode", encode, utf8(text).decode())


def _without_first_space(pre_tokenizer: Any) -> Any:
    """The component, made to put no space before what is not the beginning of a text."""
    if not isinstance(pre_tokenizer, Mapping):
        return pre_tokenizer
    if pre_tokenizer.get("type") == "Metaspace" and pre_tokenizer.get("prepend_scheme") == "first":
        kept = {key: value for key, value in pre_tokenizer.items() if key != "add_prefix_space"}
        return kept | {"prepend_scheme": "never"}
    inner = pre_tokenizer.get("pretokenizers")
    if not isinstance(inner, list):
        return pre_tokenizer
    return {**pre_tokenizer, "pretokenizers": [_without_first_space(part) for part in inner]}


def _touches(merge: Any, names: Mapping[str, str]) -> bool:
    pair = merge.split(" ") if isinstance(merge, str) else merge
    if not isinstance(pair, list) or not all(isinstance(side, str) for side in pair):
        return False  # the library refuses it with its own words
    return "".join(pair) in names or any(side in names for side in pair)


def _bytes_of_fallback(piece: str) -> bytes:
    byte = BYTE_PIECE.fullmatch(piece)
    return bytes([int(byte[1], 16)]) if byte else utf8(piece.replace("▁", " "))
