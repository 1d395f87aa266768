"""How much of a held-out text, or of a text's own sequences, stands elsewhere: counted by hashes, in memory
that does not grow with the text.
"""

from collections.abc import Iterator

import numpy as np

_BLOCK = 64  # bytes in a row that are looked for
_MOST_BLOCKS = 1 << 16
_CHUNK = 1 << 18
_MOST_SEQUENCES = 1 << 22
_BASE = 0xD1342543DE82EF95  # any odd number whose bits look random
_MIX = np.array([0xBF58476D1CE4E5B9, 0x94D049BB133111EB], np.uint64)  # of splitmix64
_HIGH_BITS = np.uint64(40)  # what they leave out


def verbatim_share(training: bytes, held_out: bytes) -> float:
    """Return the share of a held-out text that stands in the training text byte for byte, at whatever place.

    Blocks of 64 bytes side by side are looked for; of a long text 65,536, spread evenly over it.
    """
    text, length = np.frombuffer(held_out, np.uint8), min(_BLOCK, len(held_out))
    count = min(_MOST_BLOCKS, max(1, len(text) // _BLOCK))
    begin_M = np.linspace(0, len(text) - length, count).astype(np.int64)
    power_C, inverse_C = _powers(_BASE, _CHUNK + length), _powers(pow(_BASE, -1, 1 << 64), _CHUNK)
    block_ML = text[begin_M[:, None] + np.arange(length)]
    # The hash of bytes b is the sum of b[k] * _BASE ** k, modulo 2 ** 64.
    hash_M = block_ML.astype(np.uint64) @ power_C[:length]
    wanted_U, number_M = np.unique(hash_M, return_inverse=True)
    possible = np.zeros(1 << 24, bool)
    possible[wanted_U >> _HIGH_BITS] = True
    found_U = np.zeros(len(wanted_U), bool)
    for begin in range(0, len(training) - length + 1, _CHUNK):
        part = np.frombuffer(training[begin : begin + _CHUNK + length - 1], np.uint8).astype(np.uint64)
        sums = np.append(np.uint64(0), np.cumsum(part * power_C[: len(part)]))
        hashes = sums[length:] - sums[:-length]
        hashes *= inverse_C[: len(hashes)]
        hashes = hashes[possible[hashes >> _HIGH_BITS]]
        at = np.minimum(np.searchsorted(wanted_U, hashes), len(wanted_U) - 1)
        found_U[at[wanted_U[at] == hashes]] = True
    return float(found_U[number_M].mean())


def _powers(base: int, count: int) -> np.ndarray:
    """0 to count - 1 of an odd number, modulo 2 ** 64."""
    return np.cumprod(np.append(np.uint64(1), np.full(count - 1, base, np.uint64)))


def shared_sequences(training: np.ndarray, held_out: np.ndarray, length: int) -> float:
    """Return the share of the held-out ids' [M] sequences of this length that the training ids [N] have."""
    most = _largest_hash(max(len(training), len(held_out)))
    asked, known = _hashes(held_out, length, most), np.sort(_hashes(training, length, most))
    if not len(asked) or not len(known):
        return 0.0
    return float(np.mean(known[np.minimum(np.searchsorted(known, asked), len(known) - 1)] == asked))


def repeated_sequences(ids: np.ndarray, length: int) -> float:
    """Return the share of a text's sequences of this length [N ids] that stood in it before."""
    hashes = np.sort(_hashes(ids, length, _largest_hash(len(ids))))  # np.unique takes a second for 300,000
    return float(np.count_nonzero(hashes[1:] == hashes[:-1]) / len(hashes)) if len(hashes) else 0.0


def _largest_hash(count: int) -> int:
    """Up to which hashes are kept so that about four million are, of whatever many; equal ones share lots."""
    return ((1 << 64) - 1) * min(count, _MOST_SEQUENCES) // max(1, count)


def _hashes(ids: np.ndarray, length: int, most: int) -> np.ndarray:
    """Those up to `most` of the hashes of all sequences of this length, in order."""

    def parts() -> Iterator[np.ndarray]:
        for begin in range(0, len(ids) - length + 1, _CHUNK):
            part = ids[begin : begin + _CHUNK + length - 1].astype(np.uint64)
            hashes = np.zeros(len(part) - length + 1, np.uint64)
            for at in range(length):
                hashes = _mixed(hashes + part[at : at + len(hashes)] + np.uint64(1))
            yield hashes[hashes <= most]

    return np.concatenate([np.zeros(0, np.uint64), *parts()])


def _mixed(number: np.ndarray) -> np.ndarray:
    """splitmix64's last step: every bit depends on every bit."""
    number = (number ^ number >> np.uint64(30)) * _MIX[0]
    number = (number ^ number >> np.uint64(27)) * _MIX[1]
    return number ^ number >> np.uint64(31)
