"""Tables with labels: CSV and TSV, with a header or without, JSONL, JSON, Parquet; gzip of each.

TSV is written with quotes around fields by some programs and without by others, and a table may begin with
its names or with its first row. Both are seen from the beginning of the file, and said.
"""

import io
import re
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from csv import Error as CsvError
from csv import field_size_limit
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

from llm_jax.base.errors import DataError, UserError
from llm_jax.data.rows import Fault, Layout, Rows, decoded, naming_faults, parsed, read_rows
from llm_jax.data.text_files import Stream, kind_of, printable, unpacked
from llm_jax.tokenization.protocol import utf8

_LOOKED_AT = 4_000_000  # characters in which quotes and names of columns are looked for
_LOOKED_AT_ROWS = 1000
_AGREE = 4  # rows, of which the first may differ
_LONGEST_NAME = 100  # characters of a column's name, where nothing says that the line has names
_WHOLE = re.compile(r"-?(0|[1-9]\d{0,17})")  # numbers as they are written back: 007 is none
_NUMBER = re.compile(r"-?(0|[1-9]\d*)(\.\d+)?([eE][-+]?\d+)?")
_TRUTHS = {"true": True, "false": False}


class TableForm(NamedTuple):
    """How a table is read."""

    format: Literal["auto", "jsonl", "json", "csv", "tsv", "parquet"] = "auto"
    columns: Sequence[str] = ()  # that are wanted; () wants all
    header: bool | None = None  # whether CSV and TSV begin with names of columns; None: what it looks like
    limit: int = 256_000_000  # bytes of values that are kept, or of one row
    errors: Literal["strict", "replace"] = "strict"  # bytes that are not UTF-8: refuse, or put U+FFFD there


@dataclass(frozen=True)
class Table:
    """Rows of a file, column by column."""

    name: str  # of the file, for messages
    columns: dict[str, list[Any]]  # str, int, float, bool, list or None (nothing there), [rows] each
    numbers: list[int]  # of each row: its line in CSV and TSV, else its number from 1
    unit: Literal["line", "row"]  # what the numbers count

    @property
    def num_rows(self) -> int:
        """How many rows there are."""
        return len(self.numbers)

    def place(self, row: int) -> str:
        """Return where a row stands in the file, as messages say it: "line 12"."""
        return f"{self.unit} {self.numbers[row]}"


def read_table(path: Path, report: Callable[[str], None], form: TableForm = TableForm()) -> Table:
    """Return all rows of a table, up to the limit; columns of CSV and TSV that hold only numbers, or only
    true and false, as such.

    Args:
        path: the file.
        report: gets a line on what was taken, and on how it was read where that is not plain.
        form: what is taken.

    Raises:
        DataError: the file cannot be read, is empty or damaged, lacks a column, or has no rows.
        UserError: a library is missing.
    """
    found = _Gathered()
    with _opened(path, form, report) as (rows, names, is_text):
        for number, row in rows:
            if not found.add(number, row, form.limit):
                report(
                    f"warning: of {printable(str(path))} only the first {len(found.numbers):,} rows are "
                    f"taken; text_limit_mb ({form.limit // 1_000_000}) leaves out the rest"
                )
                break
    if not found.numbers:
        above = f"none below the names {', '.join(map(repr, names))}" if names else "none"
        raise DataError(f"{printable(str(path))} must have rows, found {above:.300}")
    table = found.table(path, form.columns, is_text)
    columns = {name: typed(values) if is_text else values for name, values in table.columns.items()}
    report(f"{printable(str(path))}: took {table.num_rows:,} rows of {len(columns)} columns")
    return Table(table.name, columns, table.numbers, table.unit)


def read_chunks(path: Path, rows: int, form: TableForm = TableForm()) -> Iterator[Table]:
    """Yield a table of any size as tables of so many rows, one after another; those of CSV and TSV have texts
    as they are written. Arguments and errors are those of `read_table`, errors as late as they are met.
    """
    found = _Gathered()
    with _opened(path, form, lambda line: None) as (records, _, is_text):
        for number, row in records:
            if not found.add(number, row, form.limit):
                raise DataError(
                    f"{printable(str(path))}: {rows} rows before {'line' if is_text else 'row'} {number} are "
                    f"longer than text_limit_mb ({form.limit // 1_000_000}) allows"
                )
            if len(found.numbers) == rows:
                yield found.table(path, form.columns, is_text)
                found = _Gathered()
    if found.numbers:
        yield found.table(path, form.columns, is_text)


def typed(values: list[str]) -> list[Any]:
    """Return the fields of a column as whole numbers, numbers, or truth values if all that are not empty can
    be read so, with None for the empty ones; else as they are.
    """
    given = [value for value in values if value]
    if not given:
        return values
    if all(_WHOLE.fullmatch(value) for value in given):
        return [int(value) if value else None for value in values]
    if all(_NUMBER.fullmatch(value) for value in given):
        return [float(value) if value else None for value in values]
    if all(value.lower() in _TRUTHS for value in given):
        return [_TRUTHS[value.lower()] if value else None for value in values]
    return values


class _Gathered:
    """Rows that become a table."""

    def __init__(self) -> None:
        self.numbers: list[int] = []
        self.rows: list[dict[str, Any]] = []
        self.size = 0

    def add(self, number: int, row: dict[str, Any], limit: int) -> bool:
        """Takes a row, unless it is empty; says whether there was room for it."""
        if row:
            self.size += sum(map(_size, row.values()))
            if self.size > limit:
                return False
            self.numbers.append(number)
            self.rows.append(row)
        return True

    def table(self, path: Path, wanted: Sequence[str], is_text: bool) -> Table:
        names = wanted or list(dict.fromkeys(name for row in self.rows for name in row))
        columns = {name: [_whole(row.get(name)) for row in self.rows] for name in names}
        return Table(printable(str(path)), columns, self.numbers, "line" if is_text else "row")


@contextmanager
def _opened(
    path: Path, form: TableForm, report: Callable[[str], None]
) -> Iterator[tuple[Rows, list[str], bool]]:
    """The rows of a file, its columns as they become known, and whether it is CSV or TSV."""
    name = printable(str(path))
    names: list[str] = []

    def choose(with_text: Sequence[str], there: Sequence[str]) -> Sequence[str]:
        if twice := sorted({each for each in there if list(there).count(each) > 1}):
            raise Fault(f"names of columns must differ, but {twice[0]!r:.80} stands there twice")
        names.extend(there)
        return form.columns or there

    try:
        kind, layout = form.format, None
        with naming_faults(name):
            if kind in ("auto", "csv", "tsv"):
                with path.open("rb") as file, unpacked(file) as stream:
                    kind = _kind(stream, path) if kind == "auto" else kind
                    if kind in ("csv", "tsv"):
                        layout, said = _layout(stream, kind, form)
                        if said:
                            report(f"{name}: {said}")
            with path.open("rb") as file, unpacked(file) as stream:
                if not stream.peek(1):
                    raise DataError(f"{name} must be a table, but is empty")
                needed = (lambda *_: form.columns) if kind in ("json", "jsonl") and form.columns else choose
                with closing(read_rows(stream, kind, needed, form.limit, form.errors, layout)) as rows:
                    yield rows, names, kind in ("csv", "tsv")
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{name} cannot be read: {getattr(error, 'strerror', None) or error}") from None


def _kind(stream: Stream, path: Path) -> str:
    """What a file is, by the end of its name or else by its beginning; JSON is a list or a record a line."""
    first, kind = stream.peek(4096)[:4096], kind_of(path)
    if not kind and first.startswith(b"PAR1"):
        return "parquet"
    begins = first.lstrip(b"\xef\xbb\xbf\xff\xfe\0 \t\r\n")[:1]
    if kind == "jsonl" or (not kind and begins in (b"{", b"[")):
        return "json" if begins == b"[" else "jsonl"
    if not kind and b"\t" not in first.split(b"\n")[0]:
        raise UserError(
            f"{printable(str(path))} must be a table, and its name does not say which kind; end it in .csv, "
            ".tsv, .jsonl, .json or .parquet (and .gz)"
        )
    return kind or "tsv"


def _layout(stream: Stream, kind: str, form: TableForm) -> tuple[Layout, str]:
    """How rows lie in CSV or TSV, and what is to be said of it."""
    with decoded(stream, form.errors, "") as text:
        sample = text.read(_LOOKED_AT)
        is_cut = bool(text.read(1))
    layout, said = Layout("," if kind == "csv" else "\t"), []
    rows = _parse(sample, layout, is_cut)
    if rows is None and kind == "tsv":
        layout = layout._replace(quoted=False)
        rows = _parse(sample, layout, is_cut)
        said.append("quotes are letters like others, since they do not stand around fields")
    has_names = form.header if form.header is not None else _has_names(rows or [])
    if rows and not has_names:
        begins_with_facts = len(rows[0]) != len(rows[-1]) or _has_words_above_numbers(rows)
        header = [f"column_{place}" for place in range(1, len(rows[-1]) + 1)]
        layout = layout._replace(header=header, skips_first=begins_with_facts)
        if begins_with_facts:
            said.append("its first line has other fields than all rows, and is left out")
        elif form.header is None:
            said.append(f"its first line is no header, so columns are called {', '.join(header)}")
    return layout, "; ".join(said)


def _parse(sample: str, layout: Layout, is_cut: bool) -> list[list[str]] | None:
    """The first rows; None if quotes are not balanced, or rows have not as many fields each."""
    rows, lines = [], parsed(io.StringIO(sample, newline=""), layout)
    last, before = 0, field_size_limit(_LOOKED_AT)
    try:
        for fields in lines:
            if fields and len(rows) > 1 and len(fields) != len(rows[1]):
                raise CsvError
            if fields and len(rows) < _LOOKED_AT_ROWS:
                rows.append(fields)
            last = lines.line_num
    except CsvError:  # where the sample was cut, its last row may be half of one
        return rows if is_cut and last > lines.line_num / 2 else None
    finally:
        field_size_limit(before)
    return None if _is_ragged(rows) else rows


def _is_ragged(rows: list[list[str]]) -> bool:
    """Whether the first row has more or fewer fields, unless it has numbers above several rows that agree:
    then it tells facts of the table, as how many rows there are.
    """
    if len(rows) < 2 or len(rows[0]) == len(rows[1]):
        return False
    return len(rows) < _AGREE or not any(_NUMBER.fullmatch(field) for field in rows[0])


def _has_words_above_numbers(rows: list[list[str]]) -> bool:
    """Whether the first row has words in two columns or more that have only numbers below: then it tells
    facts of the table, too. One such field may be a value that is missing, however that is written.
    """
    numbers = [
        place
        for place in range(len(rows[0]))
        if len(rows) > _AGREE and all(_NUMBER.fullmatch(row[place]) for row in rows[1:])
    ]
    words = [rows[0][place] for place in numbers if rows[0][place].isalpha()]
    return len(set(words)) > 1


def _has_names(rows: list[list[str]]) -> bool:
    """Whether the first row names the columns: its fields are short, differ, are no numbers, and do not recur
    below as values do. The first column may be without a name, as where programs write numbers of rows.
    """
    if not rows:
        return True
    first, below = rows[0], rows[1:]
    return (
        len(set(first)) == len(first)
        and all(len(name) <= _LONGEST_NAME and "\n" not in name for name in first)
        and all(first[1:] or first)
        and not any(_NUMBER.fullmatch(name) for name in first)
        and not any(name and name in (row[place] for row in below) for place, name in enumerate(first))
    )


def _whole(value: Any) -> Any:
    """The value, without halves of characters in its text."""
    return value if not isinstance(value, str) or value.isascii() else utf8(value).decode()


def _size(value: Any) -> int:
    if isinstance(value, str):
        return len(value) if value.isascii() else len(utf8(value))
    if isinstance(value, list):
        return sum(map(_size, value))
    return sum(map(_size, value.values())) if isinstance(value, dict) else 8
