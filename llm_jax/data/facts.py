"""What a token store says of its text."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from llm_jax.data.overlap import repeated_sequences, shared_sequences
from llm_jax.data.store import Store

_LABELS = {
    "documents": ("documents", "{:,}"),
    "labels": ("labels", "{:,}"),
    "labelled_texts": ("labelled texts", "{}"),
    "label_counts": ("labels told in training", "{}"),
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
    "validation_in_training": ("validation text that also stands in training, word for word", "{:.2%}"),
    "validation_overlap": ("validation 8-grams that also occur in training", "{:.2%}"),
    "repeated_sequences": ("training 8-grams that are repeats", "{:.2%}"),
}


def store_facts(store: Store, overlap_length: int = 8) -> dict[str, Any]:
    """Return counts and shares of a store; "tokens", "distinct_tokens", "largest_id" and
    "validation_tokens_never_seen" are of ids before compaction; "documents" is there where a token divides
    them.

    Args:
        store: opened.
        overlap_length: tokens of the sequences whose recurrence in the training split is counted.
    """
    train, validation = (store.tokens(split) for split in ("train", "validation"))
    base = store.manifest["base"]
    num_bytes = store.num_bytes("train") + store.num_bytes("validation")
    settings = store.manifest["settings"]
    return {
        **base,
        **({"documents": settings["documents"]} if "documents" in settings else {}),
        **(_said_of_labels(store) if store.labels else {}),
        "validation_in_training": store.manifest["validation_in_training"],
        "bytes": num_bytes,
        "bytes_per_token": num_bytes / base["tokens"],
        "vocab_size": store.tokenizer.vocab_size,
        "train_tokens": len(train),
        "validation_tokens": len(validation),
        "validation_bytes_per_token": store.num_bytes("validation") / len(validation),
        "validation_overlap": shared_sequences(train, validation, overlap_length),
        "repeated_sequences": repeated_sequences(train, overlap_length),
    }


_MOST = 12  # labels whose counts are listed


def _said_of_labels(store: Store) -> dict[str, Any]:
    texts = [f"{len(store.marks[split].edges) - 1:,} {split}" for split in store.marks]
    counts = np.bincount(store.marks["train"].targets, minlength=len(store.labels) + 1)[1:]
    order = np.argsort(-counts, kind="stable")
    told = [f"{store.labels[number]} {counts[number]:,}" for number in order[:_MOST]]
    more = [f"{len(order) - _MOST} more"] if len(order) > _MOST else []
    return {
        "labels": len(store.labels),
        "labelled_texts": ", ".join(texts),
        "label_counts": ", ".join(told + more),
    }


def label_facts(facts: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return (label, value) of each of `store_facts`, in words."""
    return [(label, form.format(facts[name])) for name, (label, form) in _LABELS.items() if name in facts]
