"""How many bytes of a text each of its tokens stands for: bits per byte are over the text's own bytes.

A token's own bytes say that where tokens joined give the text back. Normalizers that compose accents, spaces
that a tokenizer puts before a text, and characters that it leaves out make them say something else; what such
a tokenizer says of each token's place in the text does not. N tokens.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from llm_jax.tokenization.from_huggingface import FileTokenizer
from llm_jax.tokenization.protocol import Tokenizer, decode_bytes, utf8


class Encoded(NamedTuple):
    """A text as tokens."""

    ids: np.ndarray  # [N] int32
    sizes: np.ndarray  # [N] int64, bytes of the text that each stands for; they add up to all of its bytes


def encode_sized(tokenizer: Tokenizer, text: str) -> Encoded:
    """Return a text's ids with what each stands for, in UTF-8 bytes.

    A token that stands for no part of the text, as a space that is put before it, has size 0. Where several
    tokens together stand for characters that their bytes do not give back, the first of them has all the
    bytes. Characters that no token stands for count with the token before them.
    """
    ids = tokenizer.encode(text)
    own_N = own_sizes(tokenizer, ids)
    if not isinstance(tokenizer, FileTokenizer) or decode_bytes(tokenizer, ids) == utf8(text):
        return Encoded(ids, own_N)
    is_space_N = np.isin(
        ids, [token for token in np.unique(ids) if tokenizer.token_bytes(int(token)) == b" "]
    )
    return Encoded(ids, _sizes(tokenizer.places(text), own_N, is_space_N, utf8(text).decode()))


def own_sizes(tokenizer: Tokenizer, ids: Sequence[int] | np.ndarray) -> np.ndarray:
    """Return the number of bytes of each id, [N] int64."""
    counts = np.bincount(np.asarray(ids, np.int32))
    size_of = np.zeros(len(counts), np.int64)
    for token in np.flatnonzero(counts):
        size_of[token] = len(tokenizer.token_bytes(int(token)))
    return size_of[ids]


def _sizes(place_N2: np.ndarray, own_N: np.ndarray, is_space_N: np.ndarray, text: str) -> np.ndarray:
    """The text's bytes, shared out among tokens by their places.

    Tokens whose places overlap, such as the bytes of one character, are a group. Its characters' bytes go to
    its tokens as their own bytes do if that is as many, without a space that was put before them if need be.
    """
    if not len(own_N):
        return own_N
    byte_at = np.append(0, np.cumsum(_utf8_lengths(text)))
    begin_N, end_N = place_N2.T
    reached_N = np.maximum.accumulate(end_N)
    first_N = np.append(True, begin_N[1:] >= reached_N[:-1])
    first_G = np.flatnonzero(first_N)
    last_G = np.append(first_G[1:], len(own_N)) - 1
    begin_G = byte_at[begin_N[first_G]]
    bytes_G = byte_at[reached_N[last_G]] - begin_G
    excess_G = np.add.reduceat(own_N, first_G) - bytes_G

    kept_G = (excess_G == 0) | (excess_G == 1) & is_space_N[first_G]
    size_N = np.where(np.repeat(kept_G, last_G - first_G + 1), own_N, 0)
    size_N[first_G] += np.where(kept_G, -excess_G, bytes_G)
    # What no token stands for: before the first one, and behind each group.
    behind_G = np.append(begin_G[1:], byte_at[-1]) - (begin_G + bytes_G)
    size_N[np.where(kept_G, last_G, first_G)] += behind_G
    size_N[0] += begin_G[0]
    return size_N


def _utf8_lengths(text: str) -> np.ndarray:
    """Bytes of each character."""
    code = np.frombuffer(text.encode("utf-32-le"), np.uint32)
    return 1 + (code >= 0x80).astype(np.int64) + (code >= 0x800) + (code >= 0x10000)
