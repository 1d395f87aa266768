"""The X-ray of a trained model on one text, as plain values that a page can show.

How surprised it was by each token, what it would have said after each block, where each head looked, and
what it has from its training text. Arrays are numpy; the model comes in as functions. Legend: T tokens read,
D d_model, V vocabulary, K guesses, L layers, M = L + 1 residual streams (the blocks' input and each block's
output), N heads.
"""

import base64
import math
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np

from llm_jax.display.tokens import token_text, visible

NUM_GUESSES = 3


class Guess(NamedTuple):
    """A token the model thought likely."""

    label: str | None  # None for an id among those that share a row, none of which it can tell apart
    probability: float


class ScoredToken(NamedTuple):
    """A token of the text and what the model gave it; the first is not predicted and has None."""

    text: str  # as in the text, with signs for what cannot be seen
    label: str  # the same, with a dot for each space
    nats: float | None
    probability: float | None
    rank: int | None  # 1 is the model's first choice
    guesses: list[Guess]


class LensCell(NamedTuple):
    """What one residual stream says at one position."""

    guess: Guess
    true_probability: float  # of the token that does come next
    right: bool


class Attention(NamedTuple):
    """All weights of all heads, as `pack_weights` packs them."""

    layers: int
    heads: int
    length: int
    weights: str


class MarkedToken(NamedTuple):
    """A token of a generated text."""

    text: str
    span: int  # tokens of the longest verbatim passage that it is in, 0 for none
    ends: bool  # the last of its passage


class Passage(NamedTuple):
    """A place in the training text that a generated one resembles."""

    before: str
    matched: str
    after: str
    occurrences: int  # times that `matched` occurs in training


class Overlap(NamedTuple):
    """How much of a sample stands in the training text in one piece."""

    text: str
    longest: int  # tokens
    length: int  # tokens


class Origin(NamedTuple):
    """Where a generated text comes from."""

    generated: list[MarkedToken]
    passages: list[Passage]
    samples: list[Overlap]


class XRay(NamedTuple):
    """All that the page shows of one text."""

    tokens: list[ScoredToken]  # T + 1
    mean_nats: float
    vocab_size: int
    lens: list[list[LensCell]]  # M rows of T
    attention: Attention
    origin: Origin | None

    @property
    def blind_nats(self) -> float:
        """Surprisal of whoever takes all ids for equally likely."""
        return math.log(self.vocab_size)

    @property
    def surprisals(self) -> list[tuple[str, float | None]]:
        """Each token's text and nats."""
        return [(token.text, token.nats) for token in self.tokens]


def token_surprisal(logits_TV: np.ndarray, targets_T: np.ndarray) -> np.ndarray:
    """Return nats of each target, float64 [T]: minus the logarithm of its softmax."""
    return _log_normalizer(logits_TV) - _pick(logits_TV, targets_T)


def token_rank(logits_TV: np.ndarray, targets_T: np.ndarray) -> np.ndarray:
    """Return where each target stands among all ids, int [T]: 1 is the first choice, equals share a rank."""
    return 1 + np.sum(logits_TV > _pick(logits_TV, targets_T)[:, None], axis=-1)


def top_tokens(logits_TV: np.ndarray, count: int, shared_ids: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return the likeliest ids and the probability of each, [T, K]; among equals the lowest id comes first.

    The last `shared_ids` ids score the same, so the first of them stands for all.
    """
    scores_TR = logits_TV[:, : logits_TV.shape[1] - max(0, shared_ids - 1)].copy()
    ids_TK = np.empty((len(scores_TR), min(count, scores_TR.shape[1])), int)
    for k in range(ids_TK.shape[1]):
        ids_TK[:, k] = scores_TR.argmax(axis=-1)
        scores_TR[np.arange(len(scores_TR)), ids_TK[:, k]] = -np.inf
    chosen_TK = np.take_along_axis(logits_TV, ids_TK, axis=-1)
    return ids_TK, np.exp(chosen_TK - _log_normalizer(logits_TV)[:, None])


class Lens(NamedTuple):
    """What each residual stream would say, read off as if it were the last."""

    top: np.ndarray  # [M, T] ids
    top_probability: np.ndarray  # [M, T]
    true_probability: np.ndarray  # [M, T], of the targets


def logit_lens(
    streams_MTD: np.ndarray,
    read_out: Callable[[np.ndarray], np.ndarray],
    targets_T: np.ndarray,
    shared_ids: int = 0,
) -> Lens:
    """Read every residual stream with the model's own end (nostalgebraist 2020).

    Args:
        streams_MTD: the input of the first block, then the output of each.
        read_out: the final norm and the head, [T, D] to logits [T, V].
        targets_T: the token that comes next.
        shared_ids: as in `top_tokens`.
    """
    rows = []
    for stream_TD in streams_MTD:  # One at a time: [M, T, V] may not fit.
        logits_TV = read_out(stream_TD)
        top_T1, probability_T1 = top_tokens(logits_TV, 1, shared_ids)
        rows.append((top_T1[:, 0], probability_T1[:, 0], np.exp(-token_surprisal(logits_TV, targets_T))))
    return Lens(*map(np.stack, zip(*rows, strict=True)))


def pack_weights(weights_LNTT: np.ndarray) -> Attention:
    """Return attention weights as base64 of one byte each, 255 for 1.

    Each is off by less than 1/255 and each row still sums to 255: the bytes left over from rounding down go
    to the largest remainders.
    """
    scaled = np.clip(np.asarray(weights_LNTT, np.float64), 0, 1) * 255
    floor = np.floor(scaled)
    missing = np.rint(scaled.sum(-1, keepdims=True) - floor.sum(-1, keepdims=True))
    place = np.argsort(np.argsort(floor - scaled, axis=-1, kind="stable"), axis=-1)
    packed = (floor + (place < missing)).astype(np.uint8)
    layers, heads, length, _ = packed.shape
    return Attention(layers, heads, length, base64.b64encode(packed.tobytes()).decode("ascii"))


def mark_spans(texts: Sequence[str], spans: Iterable[tuple[int, int]]) -> list[MarkedToken]:
    """Return the tokens of a generated text, each with the longest of the (start, length) passages that it is
    in.
    """
    covering = [(0, -1)] * len(texts)
    for start, length in spans:
        for at in range(start, start + length):
            covering[at] = max(covering[at], (length, start))
    following = [*covering[1:], (0, -1)]
    return [
        MarkedToken(text, span[0], span[0] > 0 and span != after)
        for text, span, after in zip(texts, covering, following, strict=True)
    ]


def make_xray(
    tokens: np.ndarray,
    logits_TV: np.ndarray,
    streams_MTD: np.ndarray,
    weights_LNTT: np.ndarray,
    *,
    read_out: Callable[[np.ndarray], np.ndarray],
    token_bytes: Callable[[int], bytes],
    shared_ids: int = 0,
    origin: Origin | None = None,
) -> XRay:
    """Return the X-ray of a text.

    Args:
        tokens: the text's ids [T + 1]; the model read all but the last.
        logits_TV: what it scored.
        streams_MTD: as in `logit_lens`.
        weights_LNTT: attention, rows look at columns.
        read_out: as in `logit_lens`.
        token_bytes: the bytes of an id.
        shared_ids: how many ids at the end of the vocabulary share a row.
        origin: for a generated text, where it comes from.
    """
    vocab_size, targets_T = logits_TV.shape[1], tokens[1:]

    def guess(token: int, probability: float) -> Guess:
        told_apart = not shared_ids or token < vocab_size - shared_ids
        label = visible(token_text(token_bytes(int(token)))) if told_apart else None
        return Guess(label, _short(probability))

    nats_T, rank_T = token_surprisal(logits_TV, targets_T), token_rank(logits_TV, targets_T)
    guesses_T = [
        [guess(*pair) for pair in zip(ids, probabilities, strict=True)]
        for ids, probabilities in zip(*top_tokens(logits_TV, NUM_GUESSES, shared_ids), strict=True)
    ]
    texts = [token_text(token_bytes(int(token))) for token in tokens]
    scored = [ScoredToken(texts[0], visible(texts[0]), None, None, None, [])]
    for text, nats, rank, guesses in zip(texts[1:], nats_T, rank_T, guesses_T, strict=True):
        probability = _short(math.exp(-nats))
        scored.append(ScoredToken(text, visible(text), _short(nats), probability, int(rank), guesses))
    lens = logit_lens(streams_MTD, read_out, targets_T, shared_ids)
    rows = [
        [
            LensCell(guess(top, probability), _short(true), bool(top == target))
            for top, probability, true, target in zip(*row, targets_T, strict=True)
        ]
        for row in zip(*lens, strict=True)
    ]
    return XRay(scored, float(nats_T.mean()), vocab_size, rows, pack_weights(weights_LNTT), origin)


def _short(value: float) -> float:
    """Six digits after the point are more than a page shows."""
    return round(float(value), 6)


def _pick(logits_TV: np.ndarray, ids_T: np.ndarray) -> np.ndarray:
    return np.take_along_axis(logits_TV, np.asarray(ids_T)[:, None], axis=-1)[:, 0]


def _log_normalizer(logits_TV: np.ndarray) -> np.ndarray:
    """The logarithm of the sum of exponentials, float64 [T]."""
    largest_T = logits_TV.max(axis=-1)
    return largest_T + np.log(np.sum(np.exp(logits_TV - largest_T[:, None]), axis=-1, dtype=np.float64))
