"""Baselines: what counting n-grams reaches on the same targets, so that a loss has something to beat.

Interpolated Witten-Bell smoothing (Witten and Bell 1991): with c(h) occurrences of a context h and t(h)
distinct tokens after it, P(w|h) = (c(hw) + t(h) P(w|h')) / (c(h) + t(h)), where h' is h without its first
token; below the unigram stands the uniform 1/V.
"""

import hashlib
import json
import math
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import numpy as np

from llm_jax.base import strict_json
from llm_jax.base.files import remove_left, write_whole

NAMES = ("uniform", "unigram", "bigram", "trigram")


_FEW_TOKENS = 20_000  # of a training text: fewer, and counts were hard to beat (docs/experiments.md)
_FEW_EPOCHS = 3


def beaten(loss: float, baselines: Mapping[str, float]) -> str:
    """Say which baselines a loss is below, and which not: "beats uniform and trigram, not bigram"."""
    below = [name for name, nats in baselines.items() if loss < nats]
    above = [name for name in baselines if name not in below]
    if not above:
        return "beats every baseline"
    return f"beats {_listed(below)}, not {_listed(above)}" if below else "beats no baseline"


def why_not_beaten(loss: float, baselines: Mapping[str, float], training_tokens: int, epochs: float) -> str:
    """Say in one sentence why a trained model is not below every baseline; "" where it is.

    Args:
        loss: nats per token.
        baselines: nats per token, by name.
        training_tokens: of the training split.
        epochs: how often training has read it.
    """
    above = {name: nats for name, nats in baselines.items() if loss >= nats}
    if not above:
        return ""
    name = min(above, key=lambda each: above[each])
    if training_tokens < _FEW_TOKENS:
        why = f"{training_tokens:,} training tokens are few to learn from, and counts do well on them"
        advice = "more text helps most, or an open model to start from (--train.init_from)"
    elif epochs < _FEW_EPOCHS:
        why, advice = f"training has read the text {epochs:.1f} times only", "more steps will help"
    else:
        why = f"training has read the text {epochs:.0f} times"
        advice = "more text, more dropout or a smaller model may help"
    return f"not below the {name} baseline ({loss:.3f} nats against {above[name]:.3f}): {why}; {advice}"


def _listed(names: list[str]) -> str:
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))


def ngram_baselines(train: np.ndarray, validation: np.ndarray, vocab_size: int) -> dict[str, float]:
    """Return mean nats per token on `validation[1:]` of models counted on `train`: uniform, unigram, bigram,
    trigram.

    Args:
        train: token ids [N].
        validation: token ids [M]; as for the decoder, the first one is context only.
        vocab_size: V of the uniform baseline.
    """
    probability = np.full(len(validation) - 1, 1 / vocab_size)
    baselines = {"uniform": math.log(vocab_size)}
    for order, name in enumerate(NAMES[1:], start=1):
        probability = _interpolate(order, train.astype(np.int64), validation.astype(np.int64), probability)
        baselines[name] = float(-np.log(probability).mean())
    return baselines


def _interpolate(order: int, train: np.ndarray, validation: np.ndarray, lower: np.ndarray) -> np.ndarray:
    """Witten-Bell probabilities of validation[1:] at this order, from those of the order below."""
    padded = np.concatenate([np.full(max(0, order - 2), -1), validation])
    contexts, grams = _number_grams(order, train, padded)
    (train_contexts, asked_contexts), (train_grams, asked_grams) = contexts, grams
    gram_counts = np.bincount(train_grams, minlength=max(train_grams.max(), asked_grams.max()) + 1)
    size = max(train_contexts.max(), asked_contexts.max()) + 1
    context_counts = np.bincount(train_contexts, minlength=size)
    first_of_gram = np.unique(train_grams, return_index=True)[1]
    followers = np.bincount(train_contexts[first_of_gram], minlength=size)
    asked = slice(len(asked_grams) - len(lower), None)
    seen, total, kinds = (
        counts[ids[asked]]
        for counts, ids in (
            (gram_counts, asked_grams),
            (context_counts, asked_contexts),
            (followers, asked_contexts),
        )
    )
    mass = total + kinds
    return np.where(mass > 0, (seen + kinds * lower) / np.maximum(mass, 1), lower)


def _number_grams(order: int, *texts: np.ndarray) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Contexts and n-grams of each text as small integers that mean the same in all texts."""

    def jointly(parts: list[np.ndarray]) -> list[np.ndarray]:
        numbers = np.unique(np.concatenate(parts), return_inverse=True)[1].astype(np.int64)
        return np.split(numbers, np.cumsum([len(part) for part in parts])[:-1])

    grams = contexts = [np.zeros(len(text) - order + 1, np.int64) for text in texts]
    for offset in range(order):
        last = [text[offset : len(text) - order + 1 + offset] for text in texts]
        grams = jointly(
            [
                c * (1 + max(t.max() for t in texts) + 1) + word + 1
                for c, word in zip(contexts, last, strict=True)
            ]
        )
        if offset < order - 1:
            contexts = grams
    return contexts, grams


def cached_baselines(
    path: Path, train: np.ndarray, validation: np.ndarray, vocab_size: int
) -> dict[str, float]:
    """Return `ngram_baselines`, kept in a JSON file under a digest of its arguments; one that cannot be
    written is no error.
    """
    digest = hashlib.sha256(f"{vocab_size}".encode())
    for tokens in (train, validation):
        digest.update(np.ascontiguousarray(tokens).tobytes())
    key = digest.hexdigest()
    remove_left(path.parent, f"{path.name}.")
    try:
        known = json.loads(path.read_text())
        if isinstance(known, dict) and known.get("of") == key:
            baselines = {name: float(known["nats_per_token"][name]) for name in NAMES}
            if all(map(math.isfinite, baselines.values())):
                return baselines
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        pass
    baselines = ngram_baselines(train, validation, vocab_size)
    with suppress(OSError):
        content = strict_json.dumps({"of": key, "nats_per_token": baselines}, indent=2) + "\n"
        write_whole(path, content.encode())
    return baselines
