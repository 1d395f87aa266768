"""Command: `llm-jax prepare CORPUS`."""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from llm_jax.base.terminal import console, say, say_result
from llm_jax.cli import command
from llm_jax.config.effects import find_idle, values_of
from llm_jax.config.rules import require
from llm_jax.config.run import DataConfig

if TYPE_CHECKING:
    from rich.table import Table

    from llm_jax.data.store import Store

# Settings that say what is read, rather than how it is cut into tokens.
_OF_TEXTS = ("corpus", "format", "text_column", "text_limit_mb", "errors", "prepared", "annotate")


def prepare(
    corpus: str | None = None,
    /,
    *,
    data: Annotated[DataConfig, Parameter(name="*")] = DataConfig(),
    annotate: Path | None = None,
    given: command.Given = command.NOTHING_GIVEN,
) -> None:
    """Tokenize a text and summarise it.

    Examples:
      llm-jax prepare sales_handbook
      llm-jax prepare my_book.txt --tokenizer bpe --bpe_vocab_size 1024
      llm-jax prepare pages.jsonl --clean.html --annotate words.conllu

    Parameters
    ----------
    corpus:
        sales_handbook, tinyshakespeare, corner_shop_zh (embedded), sales_textbook, the_verdict (downloaded),
        a path to a text file, to records (.jsonl, .csv, .tsv, .parquet; gzip too) or to a folder, or - for
        standard input. Of a folder, files named .txt, .md, .text, .rst and .gz, or else its records, but no
        hidden ones.
    annotate:
        Tokenize nothing, but write the words of the (cleaned) text to this file with their parts of speech,
        entities and pronunciation: .conllu, .jsonl, or .iob2 for entities alone. Chinese and English.
    """
    require({"the corpus must be given once, with --corpus or without": not (corpus and "corpus" in given)})
    values = {f"data.{name}": value for name, value in values_of(data).items()}
    find_idle(values, {f"data.{name}": rank for name, rank in given.items()}, section="data.")
    config = data if corpus is None else dataclasses.replace(data, corpus=corpus)
    if annotate is not None:
        _annotate(config, annotate, given)
        return
    from rich.table import Table

    from llm_jax.data.facts import label_facts, store_facts
    from llm_jax.data.store import prepare_store

    store = prepare_store(config, report=say)
    facts = store_facts(store)
    table = Table("fact", "value", title=f"{store.manifest['corpus']}, {store.tokenizer.name}")
    for label, value in label_facts(facts):
        table.add_row(label, value)
    console().print(table, _first_tokens(store))
    say(f"store: {store.path}")
    say_result({"store": str(store.path), **facts})


def _annotate(config: DataConfig, path: Path, given: command.Given) -> None:
    """Write the words of a text, and what is known of them, to a file."""
    from llm_jax.annotation.annotate import annotate_file, kind_of_output
    from llm_jax.data.corpora import configured_corpus

    idle = [name for name in given if name.lower() not in _OF_TEXTS and not name.startswith("clean.")]
    require({f"{', '.join(idle)} must be left out with --annotate, which cuts no tokens": not idle})
    kind_of_output(path)  # before a long text is read
    documents = configured_corpus(config, say).documents
    say_result({"annotated": str(path), **annotate_file(documents, path, say)})


def _first_tokens(store: "Store", count: int = 8) -> "Table":
    """The beginning of the text as pieces and, below them, their ids."""
    from rich.table import Table
    from rich.text import Text

    from llm_jax.display.tokens import token_text, visible

    tokens = [int(token) for token in store.tokens("train")[:count]]
    table = Table(title="the first tokens and their ids")
    for token in tokens:
        table.add_column(Text(visible(token_text(store.tokenizer.token_bytes(token)))))
    table.add_row(*map(str, tokens))
    return table


if __name__ == "__main__":
    command.run(prepare)
