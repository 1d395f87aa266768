"""What a token store says of its text."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from llm_jax.data.store import Store

_LABELS = {
    "tokens": ("tokens", "{:,}"),
    "distinct_tokens": ("distinct tokens", "{:,}"),
    "largest_id": ("largest token id", "{:,}"),
    "bytes": ("bytes", "{:,}"),
    "bytes_per_token": ("bytes per token", "{:.2f}"),
    "vocab_size": ("vocabulary of the model", "{:,}"),
    "train_tokens": ("training tokens", "{:,}"),
    "validation_tokens": ("validation tokens", "{:,}"),
    "validation_bytes_per_token": ("bytes per validation token", "{:.2f}"),
    "validation_tokens_never_seen": ("validation tokens never seen in training", "{:.2%}"),
    "validation_overlap": ("validation 8-token sequences that training has", "{:.2%}"),
    "repeated_sequences": ("training 8-token sequences that are repeats", "{:.2%}"),
}


def store_facts(store: Store, overlap_length: int = 8) -> dict[str, Any]:
    """Counts and shares of a store; "tokens", "distinct_tokens", "largest_id" and
    "validation_tokens_never_seen" are of ids before compaction.

    Args:
        store: opened.
        overlap_length: tokens of the sequences whose recurrence in the training split is counted.
    """
    train, validation = (
        np.asarray(store.tokens(split)).astype(np.int64) for split in ("train", "validation")
    )
    base = store.manifest["base"]
    num_bytes = store.num_bytes("train") + store.num_bytes("validation")
    return {
        **base,
        "bytes": num_bytes,
        "bytes_per_token": num_bytes / base["tokens"],
        "vocab_size": store.tokenizer.vocab_size,
        "train_tokens": len(train),
        "validation_tokens": len(validation),
        "validation_bytes_per_token": store.num_bytes("validation") / len(validation),
        "validation_overlap": _overlap(train, validation, overlap_length),
        "repeated_sequences": _repeated(train, overlap_length),
    }


def label_facts(facts: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(label, value) of each of `store_facts`, in words."""
    return [(label, form.format(facts[name])) for name, (label, form) in _LABELS.items()]


def _sequences(tokens: np.ndarray, length: int) -> np.ndarray:
    """Every run of `length` tokens as one opaque value."""
    if len(tokens) < length:
        return np.empty(0, f"V{8 * length}")
    runs = np.ascontiguousarray(np.lib.stride_tricks.sliding_window_view(tokens, length))
    return runs.view(f"V{8 * length}").ravel()


def _overlap(train: np.ndarray, validation: np.ndarray, length: int) -> float:
    asked = _sequences(validation, length).tolist()
    known = set(_sequences(train, length).tolist())
    return sum(run in known for run in asked) / len(asked) if asked else 0.0


def _repeated(tokens: np.ndarray, length: int) -> float:
    runs = _sequences(tokens, length).tolist()
    return 1 - len(set(runs)) / len(runs) if runs else 0.0
