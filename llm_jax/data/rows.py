"""Rows of JSONL, JSON, CSV, TSV and Parquet with the columns that are wanted, read one after another.

Rows are numbered from 1; those of CSV and TSV are known by their line in the file. What a row means, a text
of a corpus (`records`) or an example of a table (`tables`), is not decided here.
"""

import csv
import gzip
import io
import json
import shutil
import tempfile
import zlib
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from llm_jax.base.errors import DataError, UserError
from llm_jax.data.text_files import Stream, encoding_of, printable, unpacked

_AT_ONCE = 1024  # rows of Parquet
_SHOWN = 8  # columns that a message names

Rows = Generator[tuple[int, dict[str, Any]], None, None]  # number, and the values of the wanted columns
# From the columns that hold texts and from all of them to those that are wanted.
Choose = Callable[[Sequence[str], Sequence[str]], Sequence[str]]


class Layout(NamedTuple):
    """How rows lie in CSV and TSV."""

    delimiter: str = ","
    quoted: bool = True  # whether a field that begins with a quote ends with one
    header: Sequence[str] | None = None  # names of the columns, where no line of the file has them
    skips_first: bool = False  # whether the first line is neither names nor a row


class Fault(Exception):
    """What is wrong with a file, without its name."""


class MissingColumn(Fault):
    """A wanted column is not there."""

    def __init__(self, column: str, names: Sequence[str]):
        super().__init__(f"it must have the column {column!r:.80}, but has {listed(names)}")
        self.column, self.names = column, names


def read_rows(
    stream: Stream, kind: str, choose: Choose, limit: int, errors: str, layout: Layout | None = None
) -> Rows:
    """Yield (number, row) of all rows; a row is a dict of the columns that are wanted.

    Records of JSON that lack a column lack it in the dict; of records, all other fields are there, too.

    Args:
        stream: the file's bytes, decompressed.
        kind: "jsonl", "json" (a list of objects), "csv", "tsv" or "parquet".
        choose: gives the columns that are wanted; it sees those of the first record of JSON.
        limit: bytes of the longest row of JSONL or field of CSV, and of a whole file of JSON.
        errors: "strict" refuses bytes that are not UTF-8; "replace" puts U+FFFD in their place.
        layout: of CSV and TSV; by default a header, and quotes around fields that need them.

    Raises:
        Fault: a row is damaged, or a column is missing.
        UserError: a library is missing.
        UnicodeDecodeError, OSError, EOFError, zlib.error: the file cannot be read.
    """
    if kind == "parquet":
        return _parquet(stream, choose)
    if kind in ("csv", "tsv"):
        return _table(stream, layout or Layout("," if kind == "csv" else "\t"), choose, limit, errors)
    return _checked(
        _json_lines(stream, limit, errors) if kind == "jsonl" else _json_list(stream, limit), choose
    )


@contextmanager
def naming_faults(name: str) -> Iterator[None]:
    """Around what reads rows: what is wrong with the file becomes a DataError with its name."""
    try:
        yield
    except Fault as fault:
        raise DataError(f"{name}: {fault}") from None
    except UnicodeDecodeError as error:
        wanted, byte = error.encoding.upper(), error.object[error.start]
        raise DataError(
            f"{name} must be {wanted} text, but has a byte (0x{byte:02x}) that is not; convert it, or allow "
            "U+FFFD in its place with errors = replace"
        ) from None


@contextmanager
def decoded(stream: Stream, errors: str, newline: str) -> Iterator[io.TextIOWrapper]:
    """Yield the stream as text, and leave it open."""
    text = io.TextIOWrapper(stream, encoding_of(stream.peek(4)), errors, newline)  # type: ignore[arg-type]
    try:
        yield text
    finally:
        text.detach()


def text_lines(path: Path, errors: str) -> Iterator[str]:
    """Yield the lines of a text file of any size, gzip too, without their ends.

    Raises:
        DataError: it cannot be read or decoded.
    """
    name = printable(str(path))
    try:
        with (
            naming_faults(name),
            path.open("rb") as file,
            unpacked(file) as stream,
            decoded(stream, errors, "\n") as text,
        ):
            for line in text:
                yield line.rstrip("\r\n")
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{name} cannot be read: {getattr(error, 'strerror', None) or error}") from None


def listed(names: Sequence[str]) -> str:
    """Return names for a message, of which only the first are said."""
    more = f" and {len(names) - _SHOWN:,} more" if len(names) > _SHOWN else ""
    return ", ".join(f"{name!r:.80}" for name in names[:_SHOWN]) + more or "none"


def _json_lines(stream: Stream, limit: int, errors: str) -> Rows:
    row = 0
    with decoded(stream, errors, "\n") as lines:
        while line := lines.readline(limit + 1):
            row += 1
            if len(line) > limit:
                raise Fault(f"row {row} is longer than text_limit_mb ({limit // 1_000_000}) allows")
            if not line.strip():
                continue
            try:
                record = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise Fault(f"row {row} must be a JSON object: {error}") from None
            if not isinstance(record, dict):
                raise Fault(f"row {row} must be a JSON object, one a line, got {type(record).__name__}")
            yield row, record


def _json_list(stream: Stream, limit: int) -> Rows:
    raw = stream.read(limit + 1)
    if len(raw) > limit:
        raise Fault(f"it is longer than text_limit_mb ({limit // 1_000_000}) allows; write it as JSONL")
    try:
        records = json.loads(raw.decode(encoding_of(raw)))
    except UnicodeDecodeError:
        raise
    except (ValueError, RecursionError) as error:
        raise Fault(f"it must be a JSON list of objects: {error}") from None
    if not isinstance(records, list):
        raise Fault(f"it must be a JSON list of objects, got {type(records).__name__}")
    for row, record in enumerate(records, 1):
        if not isinstance(record, dict):
            raise Fault(f"row {row} must be a JSON object, got {type(record).__name__}")
        yield row, record


def _checked(rows: Rows, choose: Choose) -> Rows:
    """The same records; each wanted column must be in one of them."""
    names: list[str] = []
    missing: set[str] = set()
    with closing(rows):
        for row, record in rows:
            if not names:
                names = list(record)
                missing = {*choose([key for key in names if isinstance(record[key], str | None)], names)}
            missing -= record.keys()
            yield row, record
    for column in sorted(missing):
        raise MissingColumn(column, names)


def _table(stream: Stream, layout: Layout, choose: Choose, limit: int, errors: str) -> Rows:
    before = csv.field_size_limit(min(limit, 2**31 - 1))
    line = 0
    try:
        with decoded(stream, errors, "") as lines:
            rows = parsed(lines, layout)
            if layout.skips_first:
                next(rows, None)
            header = layout.header or next(rows, None)
            if not header:
                raise Fault("it must begin with a line that names its columns")
            if len(header) == 1 and layout.delimiter == "," and (";" in header[0] or "\t" in header[0]):
                raise Fault("its columns must be divided by commas; write it so, or as TSV")
            places, line = _places(choose(header, header), header), rows.line_num
            for fields in rows:
                line = rows.line_num
                if len(fields) not in (0, len(header)):
                    raise Fault(
                        f"line {line} must have the {'first line' if layout.header else 'header'}'s "
                        f"{len(header)} fields, got {len(fields)}; put quotes around texts with a delimiter "
                        "in them"
                    )
                yield line, {name: fields[at] for name, at in places.items()} if fields else {}
    except csv.Error as error:
        raise Fault(f"after line {line}: {error}") from None
    finally:
        csv.field_size_limit(before)


def parsed(lines: Iterator[str], layout: Layout) -> Any:
    """Return the standard library's reader of CSV in this layout; csv.Error where quotes are not balanced."""
    quoting = csv.QUOTE_MINIMAL if layout.quoted else csv.QUOTE_NONE
    return csv.reader(lines, delimiter=layout.delimiter, quoting=quoting, strict=True)


def _parquet(stream: Stream, choose: Choose) -> Rows:
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
            columns = list(_places(choose(texts, names), names))
            row = 0
            for batch in file.iter_batches(batch_size=_AT_ONCE, columns=columns):
                for record in batch.to_pylist():
                    row += 1
                    yield row, record
        except pyarrow.ArrowException as error:
            raise Fault(f"it cannot be read as Parquet: {' '.join(str(error).split()):.200}") from None


def _places(columns: Sequence[str], names: Sequence[str]) -> dict[str, int]:
    """Where each wanted column stands."""
    for column in columns:
        if column not in names:
            raise MissingColumn(column, names)
    return {column: list(names).index(column) for column in columns}
