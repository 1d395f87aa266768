"""Records as corpora: JSONL, CSV, TSV and Parquet, which column is the text, what is refused in a line."""

import csv
import gzip
import io
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llm_jax.base.errors import DataError, UserError
from llm_jax.data import corpora
from llm_jax.data.corpora import Corpus, read_corpus
from llm_jax.data.records import Form
from tests.support.records import KINDS, columns, jsonl, table

TEXTS = ["The first,\r\nwith a line\nend.", 'She said "no".', "naïve 漢字 🙂"]
ROWS = [{"id": number, "text": text, "title": "t"} for number, text in enumerate(TEXTS)]


def read(path: Path | str, errors: str = "strict", **form: Any) -> tuple[Corpus, list[str]]:
    """The corpus, and the remarks."""
    remarks: list[str] = []
    found = read_corpus(str(path), downloads=Path(), errors=errors, report=remarks.append, form=Form(**form))
    return found, remarks


def refusal(path: Path | str, error: type[UserError] = DataError, **form: Any) -> str:
    with pytest.raises(error) as refused:
        read(path, **form)
    line = str(refused.value)
    assert line.isprintable()
    return line


def written(folder: Path, name: str, content: bytes) -> Path:
    (folder / name).write_bytes(content)
    return folder / name


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_the_texts_of_all_records_are_read_whole(kind: str, packed: bool, tmp_path: Path) -> None:
    content = KINDS[kind](ROWS)
    name = f"x.{kind.upper()}" + ".gz" * packed
    found, (line,) = read(written(tmp_path, name, gzip.compress(content) if packed else content))
    assert list(found.documents) == TEXTS
    assert found.of_records
    assert line == f"{tmp_path}/{name}: took 3 texts, 0.0 MB; left out nothing"


@pytest.mark.parametrize("kind", KINDS)
def test_the_column_is_found_or_named(kind: str, tmp_path: Path) -> None:
    write = KINDS[kind]
    rows = [{"title": "a", "body": "b"}, {"title": "c", "body": "d"}]
    path = written(tmp_path, f"x.{kind}", write(rows))
    assert list(read(path)[0].documents) == ["b", "d"]
    assert list(read(path, text_column="title")[0].documents) == ["a", "c"]
    assert "must have the column 'tilte' of text_column, but has 'title', 'body'" in refusal(
        path, text_column="tilte"
    )
    path = written(tmp_path, f"y.{kind}", write([{"title": "a", "verse": "b"}]))
    assert refusal(path).endswith("is not plain; set text_column to one of 'title', 'verse'")
    path = written(tmp_path, f"z.{kind}", write([{"verse": "only"}]))
    assert list(read(path)[0].documents) == ["only"]


@pytest.mark.parametrize("kind", KINDS)
def test_rows_without_text_are_left_out_and_counted(kind: str, tmp_path: Path) -> None:
    rows = [{"id": "1", "text": text} for text in ("one", "", None, " \n", "two")]
    found, (line,) = read(written(tmp_path, f"x.{kind}", KINDS[kind](rows)))
    assert list(found.documents) == ["one", "two"]
    assert line.endswith("took 2 texts, 0.0 MB; left out 3 without text")
    line = refusal(written(tmp_path, f"y.{kind}", KINDS[kind](rows[1:3])))
    assert line.endswith("must hold records with text, found none; left out 2 without text")


BAD: dict[str, tuple[bytes, str]] = {
    "empty.jsonl": (b"", "must hold records with text, found none"),
    "cut.jsonl": (b'{"text": "a"}\n{"text": "b', "row 2 must be a JSON object: Unterminated string"),
    "array.json": (b'[{"text": "a"}]', "row 1 must be a JSON object, one a line, got list"),
    "number.jsonl": (b'{"text": "a"}\n{"text": 5}\n', "row 2 must have a text in its column, got int"),
    "deep.jsonl": (b'{"text": ' + b"[" * 100_000, "row 1 must be a JSON object"),
    "latin.jsonl": (b'{"text": "caf\xe9"}', "must be UTF-8 text, but has a byte (0xe9)"),
    "empty.csv": (b"", "must begin with a line that names its columns"),
    "header.csv": (b"id,text\n", "must hold records with text, found none"),
    "fields.csv": (b"id,text\n1,a,b\n", "line 2 must have the header's 2 fields, got 3"),
    "open.csv": (b'id,text\n1,"a\n', "after line 1: unexpected end of data"),
    "semicolons.csv": (b"id;text\n1;a\n", "must be divided by commas"),
    "broken.parquet": (b"PAR1 and no more", "cannot be read as Parquet"),
    "empty.parquet": (b"", "cannot be read as Parquet"),
    "cut.csv.gz": (gzip.compress(b"id,text\n" * 99)[:-9], "cannot be read: Compressed file ended"),
    "no.jsonl.gz": (b"\x1f\x8bgarbage", "cannot be read"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_damaged_file_is_refused_by_name(name: str, tmp_path: Path) -> None:
    content, said = BAD[name]
    line = refusal(written(tmp_path, name, content))
    assert said in line
    assert f"{tmp_path}/{name}" in line


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
@pytest.mark.parametrize("kind", ["jsonl", "csv"])
def test_a_mark_at_the_beginning_is_no_part_of_a_name(kind: str, encoding: str, tmp_path: Path) -> None:
    content = KINDS[kind]([{"text": text} for text in TEXTS]).decode().encode(encoding)
    assert list(read(written(tmp_path, f"x.{kind}", content), text_column="text")[0].documents) == TEXTS


def test_what_is_not_utf8_can_be_replaced(tmp_path: Path) -> None:
    path = written(tmp_path, "x.jsonl", b'{"text": "caf\xe9"}\n{"text": "a\\ud800b"}\n')
    found, remarks = read(path, errors="replace")
    assert list(found.documents) == ["caf\ufffd", "a\ufffdb"]
    assert "2 texts have U+FFFD" in remarks[0]


@pytest.mark.parametrize("kind", KINDS)
def test_no_more_text_is_taken_than_is_allowed(kind: str, tmp_path: Path) -> None:
    path = written(tmp_path, f"x.{kind}", KINDS[kind]([{"text": "x" * 400_000}] * 4))
    found, remarks = read(path, limit=1_000_000)
    assert len(found.documents) == 2
    assert "only the first texts are taken; text_limit_mb (1) leaves out the rest" in remarks[0]
    assert "took 2 texts, 0.8 MB" in remarks[1]


def test_a_line_longer_than_is_allowed_is_not_read_whole(tmp_path: Path) -> None:
    path = written(tmp_path, "x.jsonl", b'{"text": "' + b"x" * 2_000_000)
    assert "row 1 is longer than text_limit_mb (1)" in refusal(path, limit=1_000_000)
    path = written(tmp_path, "x.csv", b'text\n"' + b"x" * 2_000_000)
    assert "field larger than field limit" in refusal(path, limit=1_000_000)
    assert csv.field_size_limit() == 131072


def test_parquet_says_which_package_it_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path, "x.parquet", columns(ROWS))
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert (
        refusal(path, UserError) == 'Parquet files need the package pyarrow: pip install "llm-jax[parquet]"'
    )


def test_a_format_that_is_said_overrules_the_name(tmp_path: Path) -> None:
    path = written(tmp_path, "x.txt", jsonl(ROWS))
    assert list(read(path)[0].documents) == [path.read_text()]
    assert list(read(path, format="jsonl")[0].documents) == TEXTS
    path = written(tmp_path, "x.jsonl", jsonl(ROWS))
    assert list(read(path, format="text")[0].documents) == [path.read_text()]
    assert "text_column is for records" in refusal(path, UserError, format="text", text_column="text")


def test_a_folder_has_its_text_files_or_else_its_records(tmp_path: Path) -> None:
    written(tmp_path, "b.jsonl.gz", gzip.compress(jsonl([{"text": "second"}])))
    written(tmp_path, "a.csv", table([{"text": "first"}]))
    written(tmp_path, "c.png", b"x")
    found, remarks = read(tmp_path)
    assert list(found.documents) == ["first", "second"]
    assert found.of_records
    assert remarks[0] == (
        f"folder {tmp_path}: 2 files of records; left out 1 not .txt .md .text .rst .gz (c.png)"
    )
    assert list(read(tmp_path, format="csv")[0].documents) == ["first"]
    written(tmp_path, "d.txt", b"text")
    found, (line,) = read(tmp_path)
    assert (list(found.documents), found.of_records) == (["text"], False)
    assert "left out 3 not .txt .md .text .rst .gz (a.csv, b.jsonl.gz, c.png)" in line


@pytest.fixture
def standard_input(monkeypatch: pytest.MonkeyPatch) -> Callable[[bytes], None]:
    def given(content: bytes) -> None:
        corpora._standard_input.cache_clear()
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BufferedReader(io.BytesIO(content))))  # type: ignore[arg-type]

    return given


def test_standard_input_is_text_or_what_it_looks_like(standard_input: Callable[[bytes], None]) -> None:
    standard_input(b"Plain text.\n")
    assert read("-") == (Corpus("stdin", ["Plain text.\n"]), [])
    assert read("-")[0].text == "Plain text.\n"  # a second look in one process
    standard_input(gzip.compress(b"Packed text.\n"))
    assert read("-")[0].text == "Packed text.\n"
    for kind in ("jsonl", "parquet"):
        standard_input(KINDS[kind](ROWS))
        found, remarks = read("-")
        assert list(found.documents) == TEXTS
        assert remarks[0].startswith(f"standard input: read as {kind}")
    standard_input(table(ROWS))
    assert list(read("-", format="csv")[0].documents) == TEXTS
    standard_input(jsonl(ROWS))
    assert read("-", format="text")[0].documents == [jsonl(ROWS).decode()]
    standard_input(b"one line\n" * 200_000)
    found, (line,) = read("-", limit=1_000_000)
    assert len(found.text) == 999_999
    assert found.text.endswith("line\n")
    assert "only the first 1.0 MB are taken" in line
    standard_input(b"")
    assert refusal("-") == "corpus standard input must hold text, got nothing"
