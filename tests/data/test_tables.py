"""Tables with labels: every column of every kind of file, headers, loose quotes, and what is refused."""

import gzip
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llm_jax.base.errors import DataError, UserError
from llm_jax.data.tables import Table, TableForm, read_chunks, read_table, typed
from tests.support.records import KINDS, jsonl
from tests.support.shared_data import SharedData

ROWS = [
    {"text": "Win, now!\r\nCall.", "spam": "yes", "count": 3, "share": 0.5, "sure": True},
    {"text": 'She said "no".\tOh', "spam": "no", "count": -4, "share": 1e-7, "sure": False},
    {"text": "漢字 🙂", "spam": "no", "count": 0, "share": 2.0, "sure": True},
]
EVERY: dict[str, Callable[[list[dict[str, Any]]], bytes]] = {
    **KINDS,
    "json": lambda rows: json.dumps(rows, indent=1).encode(),
}


def written(folder: Path, name: str, content: bytes | str) -> Path:
    (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)
    return folder / name


def read(path: Path, **form: Any) -> tuple[Table, list[str]]:
    """The table, and the remarks."""
    remarks: list[str] = []
    return read_table(path, remarks.append, TableForm(**form)), remarks


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("kind", EVERY)
def test_every_column_is_read_with_its_type(kind: str, packed: bool, tmp_path: Path) -> None:
    content = EVERY[kind](ROWS)
    name = f"x.{kind}" + ".gz" * packed
    table, (line,) = read(written(tmp_path, name, gzip.compress(content) if packed else content))
    assert table.columns == {column: [row[column] for row in ROWS] for column in ROWS[0]}
    assert [type(values[0]) for values in table.columns.values()] == [str, str, int, float, bool]
    assert table.num_rows == 3
    assert line == f"{tmp_path}/{name}: took 3 rows of 5 columns"


@pytest.mark.parametrize("kind", EVERY)
def test_only_wanted_columns_are_kept_and_a_missing_one_is_refused(kind: str, tmp_path: Path) -> None:
    path = written(tmp_path, f"x.{kind}", EVERY[kind](ROWS))
    assert list(read(path, columns=("spam", "text"))[0].columns) == ["spam", "text"]
    with pytest.raises(DataError, match="must have the column 'label', but has 'text', 'spam', 'count'"):
        read(path, columns=("text", "label"))


@pytest.mark.parametrize("kind", EVERY)
def test_chunks_are_the_same_rows(kind: str, tmp_path: Path) -> None:
    path = written(tmp_path, f"x.{kind}", EVERY[kind](ROWS * 3))
    whole = read(path, columns=("text",))[0]
    parts = list(read_chunks(path, 4, TableForm(columns=("text",))))
    assert [part.num_rows for part in parts] == [4, 4, 1]
    assert [text for part in parts for text in part.columns["text"]] == whole.columns["text"]
    assert [number for part in parts for number in part.numbers] == whole.numbers


def test_a_row_is_known_by_its_line_or_number(tmp_path: Path) -> None:
    table = read(written(tmp_path, "x.csv", 'text,label\n"two\nlines",a\n\nb,c\n'))[0]
    assert [table.place(row) for row in range(2)] == ["line 3", "line 5"]
    assert read(written(tmp_path, "x.json", '[{"a": "b"}]'))[0].place(0) == "row 1"


def test_records_may_lack_fields_and_hold_lists(tmp_path: Path) -> None:
    rows = [{"text": "a", "topics": ["x", "y"]}, {"text": None, "id": 7}]
    table = read(written(tmp_path, "x.jsonl", jsonl(rows)))[0]
    assert table.columns == {"text": ["a", None], "topics": [["x", "y"], None], "id": [None, 7]}


def test_the_spam_messages_are_read_as_they_stand(shared_data: SharedData) -> None:
    """A byte-order mark, no header, and quotes that close nothing."""
    table, remarks = read(shared_data / "sms_spam_collection.tsv")
    assert Counter(table.columns["column_1"]) == {"ham": 4827, "spam": 747}
    assert table.columns["column_2"][0].startswith("Go until jurong point, crazy..")
    assert table.num_rows == table.numbers[-1] == 5574
    assert "quotes are letters like others" in remarks[0]
    assert "its first line is no header, so columns are called column_1, column_2" in remarks[0]


TSV = {
    "quoted": ('a\tb\n"x\ty\nz"\t"say ""so"""\n', ["x\ty\nz", 'say "so"']),
    "open": ('a\tb\n"x\ty\nz\tw\n', ['"x', "y"]),
    "inner": ('a\tb\n"x" and "y"\tz\n', ['"x" and "y"', "z"]),
    "over the row": ('a\tb\n"x\ty\nz"\tw\n"\tv\n', ['"x', "y"]),
}


@pytest.mark.parametrize("name", TSV)
def test_quotes_of_tsv_count_where_they_stand_around_fields(name: str, tmp_path: Path) -> None:
    content, first = TSV[name]
    table = read(written(tmp_path, "x.tsv", content))[0]
    assert [values[0] for values in table.columns.values()] == first


HEADERS = {
    "names": ("text,label\nhello,ham\nwin,spam\n", True),
    "names alone": ("text,label\n", True),
    "a column without a name": (",text,label\n0,hello,ham\n1,win,spam\n", True),
    "a value that recurs": ("hello,ham\nhi,ham\nwin,spam\n", False),
    "a number": ("hello,1\nwin,0\n", False),
    "the same twice": ("no,no\nyes,maybe\n", False),
    "a long text": (f"{'word ' * 30},ham\nwin,spam\n", False),
}


@pytest.mark.parametrize("name", HEADERS)
def test_a_header_is_told_from_a_row(name: str, tmp_path: Path) -> None:
    content, has_names = HEADERS[name]
    path = written(tmp_path, "x.csv", content)
    if content.count("\n") > 1:
        assert read(path)[0].num_rows == content.count("\n") - has_names
    assert read(path, header=False)[0].num_rows == content.count("\n")


def test_a_first_line_with_words_where_all_else_is_numbers_is_no_row(tmp_path: Path) -> None:
    """As scikit-learn's iris.csv: rows, columns, and the names of the labels."""
    rows = [f"5.{at},3.{at},1.{at},{at % 2}" for at in range(9)]
    table, remarks = read(written(tmp_path, "x.csv", "\n".join(["9,3,setosa,virginica", *rows, ""])))
    assert (table.num_rows, len(table.columns)) == (9, 4)
    assert "is left out" in remarks[0]
    assert read(written(tmp_path, "y.csv", "\n".join(["9,3,NA,NA", *rows, ""])))[0].num_rows == 10


def test_a_first_line_of_facts_is_no_row(tmp_path: Path) -> None:
    path = written(tmp_path, "x.csv", "3,2,red,white\n1.5,2,0\n2.5,3,1\n3.5,4,0\n")
    table, remarks = read(path)
    assert table.columns == {"column_1": [1.5, 2.5, 3.5], "column_2": [2, 3, 4], "column_3": [0, 1, 0]}
    assert table.numbers == [2, 3, 4]
    assert "its first line has other fields than all rows, and is left out" in remarks[0]


def test_a_file_without_a_known_name_is_looked_into(tmp_path: Path) -> None:
    for content in (jsonl(ROWS), EVERY["json"](ROWS), EVERY["parquet"](ROWS), EVERY["tsv"](ROWS)):
        assert read(written(tmp_path, "x.data", content))[0].columns["spam"] == ["yes", "no", "no"]
    with pytest.raises(UserError, match="its name does not say which kind"):
        read(written(tmp_path, "x.data", b"plain text\n"))


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
@pytest.mark.parametrize("kind", ["json", "jsonl", "csv", "tsv"])
def test_a_byte_order_mark_says_the_encoding(kind: str, encoding: str, tmp_path: Path) -> None:
    path = written(tmp_path, f"x.{kind}", EVERY[kind](ROWS).decode().encode(encoding))
    assert read(path)[0].columns["text"] == [row["text"] for row in ROWS]


BAD = {
    "empty.csv": ("", "must be a table, but is empty"),
    "empty.jsonl": ("", "must be a table, but is empty"),
    "header.csv": ("text,label\n", "must have rows, found none below the names 'text', 'label'"),
    "none.json": ("[]", "must have rows, found none"),
    "ragged.csv": ("text,label\na,b\nc\n", "line 3 must have the header's 2 fields, got 1"),
    "ragged.tsv": ("a\tb\nx\ty\nz\n", "line 3 must have the header's 2 fields, got 1"),
    "open.csv": ('text,label\n"a,b\n', "after line 1: unexpected end of data"),
    "semicolons.csv": ("text;label\na;b\n", "must be divided by commas"),
    "twice.csv": ("text,label,text\na,b,c\n", "must differ, but 'text' stands there twice"),
    "latin.csv": (b"text,label\ncaf\xe9,b\n", "must be UTF-8 text, but has a byte (0xe9)"),
    "cut.json": ('[{"text": "a"', "must be a JSON list of objects"),
    "strings.json": ('["a"]', "row 1 must be a JSON object, got str"),
    "line.jsonl": ('{"a": "b"}\n["c"]\n', "row 2 must be a JSON object, one a line, got list"),
    "broken.parquet": ("PAR1 and no more", "cannot be read as Parquet"),
    "cut.csv.gz": (gzip.compress(b"text,label\n" * 99)[:-9], "cannot be read: Compressed file ended"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_damaged_table_is_refused_in_a_line(name: str, tmp_path: Path) -> None:
    content, said = BAD[name]
    path = written(tmp_path, name, content)
    for reading in (
        lambda: read(path, header=True),
        lambda: list(read_chunks(path, 9, TableForm(header=True))),
    ):
        if "must have rows" in said and reading.__code__.co_names[0] == "list":
            continue  # what has no rows has no chunks
        with pytest.raises(DataError) as refused:
            reading()
        line = str(refused.value)
        assert said in line
        assert str(path) in line
        assert line.isprintable()


def test_no_more_rows_are_taken_than_are_allowed(tmp_path: Path) -> None:
    path = written(tmp_path, "x.jsonl", jsonl([{"text": "x" * 400_000, "label": "a"}] * 4))
    table, remarks = read(path, limit=1_000_000)
    assert table.num_rows == 2
    assert "only the first 2 rows are taken; text_limit_mb (1) leaves out the rest" in remarks[0]
    assert [part.num_rows for part in read_chunks(path, 1, TableForm(limit=1_000_000))] == [1] * 4
    with pytest.raises(DataError, match="4 rows before row 3 are longer than text_limit_mb"):
        list(read_chunks(path, 4, TableForm(limit=1_000_000)))
    path = written(tmp_path, "x.json", json.dumps([{"text": "x" * 2_000_000}]))
    with pytest.raises(DataError, match=r"longer than text_limit_mb \(1\) allows; write it as JSONL"):
        read(path, limit=1_000_000)


def test_bytes_that_are_no_text_can_be_replaced(tmp_path: Path) -> None:
    path = written(tmp_path, "x.csv", b"text,label\ncaf\xe9,b\n")
    assert read(path, errors="replace")[0].columns["text"] == ["caf\ufffd"]


def test_fields_keep_their_writing_unless_all_are_numbers() -> None:
    assert typed(["1", "", "-20"]) == [1, None, -20]
    assert typed(["1", "2.5", "1e3"]) == [1.0, 2.5, 1000.0]
    assert typed(["True", "false", ""]) == [True, False, None]
    for texts in (["007", "1"], ["1", "one"], ["", ""], ["nan"], ["true", "1"]):
        assert typed(texts) == texts
