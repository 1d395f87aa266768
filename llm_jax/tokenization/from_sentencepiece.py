"""SentencePiece's own file, tokenizer.model, as the content of a `tokenizer.json`.

The file is a message of protocol buffers (sentencepiece_model.proto of https://github.com/google/sentencepiece)
of which a few fields matter; they are read here without a library.
"""

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from llm_jax.base.errors import DataError
from llm_jax.tokenization.from_gguf import NORMAL, USER_DEFINED, sentencepiece_json
from llm_jax.tokenization.from_huggingface import MARKER, FileTokenizer

_MOST_BYTES = 64 << 20
_PIECES, _TRAINER, _NORMALIZER = 1, 2, 3
_PIECE, _SCORE, _KIND = 1, 2, 3
_MODEL, _SUFFIX, _FALLBACK = 3, 24, 35  # of the trainer's settings
_CHARSMAP, _PREFIX, _COLLAPSE, _ESCAPE = 2, 3, 4, 5  # of the normalizer's
_UNIGRAM, _BPE = 1, 2


def read_sentencepiece(path: Path) -> FileTokenizer:
    """Return the tokenizer of a `tokenizer.model`: BPE or Unigram that spells bytes and changes no letters.

    Raises:
        DataError: it cannot be read, is damaged, or of a kind whose ids are not known here.
    """
    try:
        if (size := path.stat().st_size) > _MOST_BYTES:
            raise DataError(f"must have at most {_MOST_BYTES:,} bytes, got {size:,}")
        return FileTokenizer(sentencepiece_content(path.read_bytes()))
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from None
    except DataError as error:
        raise DataError(f"{path}: {error}") from None


def sentencepiece_content(raw: bytes) -> dict[str, Any]:
    """Return the content of the `tokenizer.json` that gives the ids which SentencePiece gives.

    Raises:
        DataError: these bytes are no such model, or one of a kind whose ids are not known here.
    """
    try:
        fields = list(_fields(raw))
        pieces = [dict(_fields(value)) for field, value in fields if field == _PIECES]
        if not pieces:
            raise ValueError("no pieces")
        texts = [piece[_PIECE].decode() for piece in pieces]
        scores = [struct.unpack("<f", piece.get(_SCORE, bytes(4)))[0] for piece in pieces]
        kinds = [piece.get(_KIND, NORMAL) for piece in pieces]
        trainer, normalizer = (
            dict(_fields(b"".join(value for number, value in fields if number == field)))
            for field in (_TRAINER, _NORMALIZER)
        )
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, struct.error):
        raise DataError(
            "must be a SentencePiece model, and is none; give --tokenizer with a tokenizer.json"
        ) from None
    model, prefix = trainer.get(_MODEL, _UNIGRAM), bool(normalizer.get(_PREFIX, 1))
    collapse = bool(normalizer.get(_COLLAPSE, 1))
    if model not in (_UNIGRAM, _BPE):
        raise DataError(
            "must be a SentencePiece model of BPE or Unigram; give --tokenizer with a tokenizer.json"
        )
    if not trainer.get(_FALLBACK):
        raise DataError("must be a SentencePiece model with byte_fallback, since others lose letters")
    if normalizer.get(_CHARSMAP) or not normalizer.get(_ESCAPE, 1) or trainer.get(_SUFFIX):
        raise DataError(
            "a SentencePiece model that replaces letters or puts spaces elsewhere is not supported; "
            "give --tokenizer with a tokenizer.json"
        )
    words = [text for text, kind in zip(texts, kinds, strict=True) if kind == USER_DEFINED]
    if (prefix or collapse) and (word := next((word for word in words if not MARKER.fullmatch(word)), None)):
        raise DataError(
            f"a SentencePiece model that changes spaces and has the word {word!r:.80} is not supported"
        )
    content = sentencepiece_json(texts, kinds, scores, prefix=prefix, unigram=model == _UNIGRAM)
    if collapse:
        content["normalizer"]["normalizers"][:0] = [
            {"type": "Replace", "pattern": {"Regex": regex}, "content": to}
            for regex, to in ((r"\A +|[ ▁]+\z", ""), (" {2,}", " "))
        ]
    return content


def _fields(raw: bytes) -> Iterator[tuple[int, Any]]:
    """Number and value of each field: an int, or bytes."""
    at = 0
    while at < len(raw):
        key, at = _number(raw, at)
        match key & 7:
            case 0:
                value, at = _number(raw, at)
                yield key >> 3, value
                continue
            case 1:
                length = 8
            case 2:
                length, at = _number(raw, at)
            case 5:
                length = 4
            case _:
                raise ValueError("no such kind of field")
        if at + length > len(raw):
            raise ValueError("a field ends beyond the file")
        yield key >> 3, raw[at : at + length]
        at += length


def _number(raw: bytes, at: int) -> tuple[int, int]:
    """A number in groups of 7 bits, the lowest first, and where it ends."""
    number = shift = 0
    while True:
        number |= (raw[at] & 127) << shift
        at, shift = at + 1, shift + 7
        if raw[at - 1] < 128:
            return number, at
        if shift > 63:
            raise ValueError("a number is too long")
