"""Records with a text: JSONL, CSV, TSV and Parquet, row after row.

Only the text column is kept, and no more than `Form.limit` bytes of it, whatever the file's size. Rows are
numbered from 1; those of CSV are known by their line in the file.
"""

import csv
import gzip
import io
import json
import shutil
import tempfile
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from typing import Any, NamedTuple

from llm_jax.base.errors import DataError, UserError
from llm_jax.data.text_files import Stream, encoding_of, printable
from llm_jax.tokenization.protocol import utf8

_LIKELY = ("text", "content", "document", "body", "article", "story")  # the surest name first
_ROWS = 1024  # of Parquet, read at once
_SHOWN = 8  # columns that a message names


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
    reader = {"jsonl": _json_lines, "csv": _table, "tsv": _table, "parquet": _parquet}[kind]
    try:
        with closing(reader(stream, kind, form, errors)) as rows:
            texts, size, without, is_cut = _take(rows, form.limit)
    except _Fault as fault:
        raise DataError(f"{name}: {fault}") from None
    except UnicodeDecodeError as error:
        wanted, byte = error.encoding.upper(), error.object[error.start]
        raise DataError(
            f"{name} must be {wanted} text, but has a byte (0x{byte:02x}) that is not; convert it, or allow "
            "U+FFFD in its place with errors = replace"
        ) from None
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


def _take(rows: "_Rows", limit: int) -> tuple[list[str], int, int, bool]:
    """The texts that there are, their bytes, how many rows have none, and whether there are more."""
    texts: list[str] = []
    size = without = 0
    for row, value in rows:
        if value is not None and not isinstance(value, str):
            raise _Fault(f"row {row} must have a text in its column, got {type(value).__name__}")
        if not value or not value.strip():
            without += 1
            continue
        raw = utf8(value)
        if size + len(raw) > limit:
            return texts, size, without, True
        texts.append(value if value.isascii() else raw.decode())  # without halves of characters
        size += len(raw)
    return texts, size, without, False


class _Fault(Exception):
    """What is wrong with a file, without its name."""


_Rows = Generator[tuple[int, Any], None, None]  # number, and what the text column has


@contextmanager
def _lines(stream: Stream, errors: str, newline: str) -> Iterator[io.TextIOWrapper]:
    """The stream as text, which leaves it open."""
    text = io.TextIOWrapper(stream, encoding_of(stream.peek(4)), errors, newline)  # type: ignore[arg-type]
    try:
        yield text
    finally:
        text.detach()


def _json_lines(stream: Stream, kind: str, form: Form, errors: str) -> _Rows:
    column, row, seen, names = form.text_column, 0, False, []
    with _lines(stream, errors, "\n") as lines:
        while line := lines.readline(form.limit + 1):
            row += 1
            if len(line) > form.limit:
                raise _Fault(f"row {row} is longer than text_limit_mb ({form.limit // 1_000_000}) allows")
            if not line.strip():
                continue
            try:
                record = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise _Fault(f"row {row} must be a JSON object: {error}") from None
            if not isinstance(record, dict):
                raise _Fault(f"row {row} must be a JSON object, one a line, got {type(record).__name__}")
            names = names or list(record)
            column = column or _found([key for key in record if isinstance(record[key], str | None)], names)
            seen = seen or column in record
            yield row, record.get(column)
    if names and not seen:
        _require_column(column, names)


def _table(stream: Stream, kind: str, form: Form, errors: str) -> _Rows:
    before = csv.field_size_limit(min(form.limit, 2**31 - 1))
    line = 0
    try:
        with _lines(stream, errors, "") as lines:
            rows = csv.reader(lines, delimiter="," if kind == "csv" else "\t", strict=True)
            header = next(rows, None)
            if not header:
                raise _Fault("it must begin with a line that names its columns")
            if len(header) == 1 and kind == "csv" and (";" in header[0] or "\t" in header[0]):
                raise _Fault("its columns must be divided by commas; write it so, or as TSV")
            at, line = _require_column(form.text_column or _found(header, header), header), rows.line_num
            for fields in rows:
                line = rows.line_num
                if len(fields) not in (0, len(header)):
                    raise _Fault(
                        f"line {line} must have the header's {len(header)} fields, got {len(fields)}; put "
                        "quotes around texts with a delimiter in them"
                    )
                yield line, fields[at] if fields else None
    except csv.Error as error:
        raise _Fault(f"after line {line}: {error}") from None
    finally:
        csv.field_size_limit(before)


def _parquet(stream: Stream, kind: str, form: Form, errors: str) -> _Rows:
    try:
        import pyarrow
        from pyarrow import parquet, types
    except ImportError:
        raise UserError('Parquet files need the package pyarrow: pip install "llm-jax[parquet]"') from None
    with tempfile.TemporaryFile() as whole:
        if not stream.seekable() or isinstance(stream, gzip.GzipFile):  # it is read from its end
            shutil.copyfileobj(stream, whole)
            stream = whole  # type: ignore[assignment]
        try:
            file = parquet.ParquetFile(stream)
            texts = [
                field.name
                for field in file.schema_arrow
                if types.is_string(field.type) or types.is_large_string(field.type)
            ]
            names = file.schema_arrow.names
            column = form.text_column or _found(texts, names)
            _require_column(column, names)
            row = 0
            for batch in file.iter_batches(batch_size=_ROWS, columns=[column]):
                for value in batch.column(0).to_pylist():
                    row += 1
                    yield row, value
        except pyarrow.ArrowException as error:
            raise _Fault(f"it cannot be read as Parquet: {' '.join(str(error).split()):.200}") from None


def _found(texts: Sequence[str], names: Sequence[str] | dict) -> str:
    """The column that is plainly the text, of those that hold texts."""
    by_name = {name.lower(): name for name in reversed(texts)}
    if likely := next((by_name[name] for name in _LIKELY if name in by_name), None):
        return likely
    if len(texts) == 1:
        return texts[0]
    raise _Fault(f"which column has the text is not plain; set text_column to one of {_listed(list(names))}")


def _require_column(column: str, names: Sequence[str]) -> int:
    if column not in names:
        raise _Fault(f"it must have the column {column!r:.80} of text_column, but has {_listed(names)}")
    return list(names).index(column)


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN:,} more" if len(names) > _SHOWN else ""
    return ", ".join(f"{name!r:.80}" for name in names[:_SHOWN]) + more or "none"
