"""Door: `python -m llm_jax.prepare CORPUS`."""

import dataclasses
import json
from typing import Annotated

from cyclopts import Parameter

from llm_jax import command
from llm_jax.config import DataConfig

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


def prepare(
    corpus: str | None = None,
    /,
    *,
    data: Annotated[DataConfig, Parameter(name="*")] = DataConfig(),
) -> None:
    """Turns a text into a token store and says what is in it.

    Example: python -m llm_jax.prepare my_book.txt --tokenizer bpe --bpe_vocab_size 2048

    Parameters
    ----------
    corpus:
        sales_handbook (embedded), sales_textbook, tinyshakespeare, the_verdict (downloaded), or a path to a
        text file or folder.
    """
    from rich.console import Console
    from rich.table import Table

    from llm_jax.data.facts import store_facts
    from llm_jax.data.store import prepare_store

    store = prepare_store(data if corpus is None else dataclasses.replace(data, corpus=corpus), report=print)
    facts = store_facts(store)
    table = Table("fact", "value", title=f"{store.manifest['corpus']}, {store.tokenizer.name}")
    for name, (label, form) in _LABELS.items():
        table.add_row(label, form.format(facts[name]))
    Console().print(table)
    print(f"store: {store.path}")
    print(json.dumps({"store": str(store.path), **facts}))


if __name__ == "__main__":
    command.run(prepare)
