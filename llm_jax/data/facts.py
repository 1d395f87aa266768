"""What a token store says of its text."""

from collections.abc import Mapping
from typing import Any

from llm_jax.data.overlap import repeated_sequences, shared_sequences
from llm_jax.data.store import Store

_LABELS = {
    "documents": ("documents", "{:,}"),
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


def label_facts(facts: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return (label, value) of each of `store_facts`, in words."""
    return [(label, form.format(facts[name])) for name, (label, form) in _LABELS.items() if name in facts]
