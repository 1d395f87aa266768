"""Records with a text: JSONL, CSV, TSV and Parquet, row after row (see `rows`).

Only the text column is kept, and no more than `Form.limit` bytes of it, whatever the file's size.
"""

from collections.abc import Callable, Sequence
from contextlib import closing
from typing import NamedTuple

from llm_jax.base.errors import DataError
from llm_jax.data.rows import Fault, MissingColumn, listed, naming_faults, read_rows
from llm_jax.data.text_files import Stream, printable
from llm_jax.tokenization.protocol import utf8

_LIKELY = ("text", "content", "document", "body", "article", "story")  # the surest name first


class Form(NamedTuple):
    """What a corpus is, as settings say it."""

    format: str = "auto"
    text_column: str = ""
    limit: int = 256_000_000  # bytes of text


def read_records(
    stream: Stream, name: str, kind: str, form: Form, errors: str, report: Callable[[str], None]
) -> list[str]:
    """Return the texts of all records that have one, in their order, up to the limit.

    Args:
        stream: the file's bytes, decompressed.
        name: of the file, for messages.
        kind: "jsonl", "csv", "tsv" or "parquet".
        form: which column has the text, and how much of it is taken.
        errors: "strict" refuses bytes that are not UTF-8; "replace" puts U+FFFD in their place.
        report: gets a line on what was taken and what was left out.

    Raises:
        DataError: a row is damaged, no column is plainly the text, or no row has one.
        UserError: a library is missing.
        OSError, EOFError, zlib.error: the file cannot be read.
    """
    name = printable(name)
    with naming_faults(name):
        texts, size, without, is_cut = _take(stream, kind, form, errors)
    if is_cut:
        report(
            f"warning: of {name} only the first texts are taken; text_limit_mb ({form.limit // 1_000_000}) "
            "leaves out the rest"
        )
    left_out = f"{without:,} without text" if without else "nothing"
    if not texts:
        raise DataError(f"{name} must hold records with text, found none; left out {left_out}")
    if replaced := sum("\ufffd" in text for text in texts) if errors == "replace" else 0:
        report(f"{name}: {replaced:,} texts have U+FFFD, as where bytes were not UTF-8")
    report(f"{name}: took {len(texts):,} texts, {size / 1e6:.1f} MB; left out {left_out}")
    return texts


def _take(stream: Stream, kind: str, form: Form, errors: str) -> tuple[list[str], int, int, bool]:
    """The texts that there are, their bytes, how many rows have none, and whether there are more."""
    chosen: list[str] = []

    def choose(with_text: Sequence[str], names: Sequence[str]) -> Sequence[str]:
        chosen.append(form.text_column or _found(with_text, names))
        return chosen

    texts: list[str] = []
    size = without = 0
    try:
        with closing(read_rows(stream, kind, choose, form.limit, errors)) as rows:
            for row, record in rows:
                value = record.get(chosen[0])
                if value is not None and not isinstance(value, str):
                    raise Fault(f"row {row} must have a text in its column, got {type(value).__name__}")
                if not value or not value.strip():
                    without += 1
                    continue
                raw = utf8(value)
                if size + len(raw) > form.limit:
                    return texts, size, without, True
                texts.append(value if value.isascii() else raw.decode())  # without halves of characters
                size += len(raw)
    except MissingColumn as fault:
        raise Fault(
            f"it must have the column {fault.column!r:.80} of text_column, but has {listed(fault.names)}"
        ) from None
    return texts, size, without, False


def _found(texts: Sequence[str], names: Sequence[str]) -> str:
    """The column that is plainly the text, of those that hold texts."""
    by_name = {name.lower(): name for name in reversed(texts)}
    if likely := next((by_name[name] for name in _LIKELY if name in by_name), None):
        return likely
    if len(texts) == 1:
        return texts[0]
    raise Fault(f"which column has the text is not plain; set text_column to one of {listed(list(names))}")
