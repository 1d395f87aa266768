"""Conversations out of files: rows with messages, or with a prompt and its answer, as people keep them."""

import collections
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from llm_jax.base.errors import DataError
from llm_jax.data.tables import Table, TableForm, read_table

Report = Callable[[str], None]

# Names of columns with the prompt, each with those of its answer; the surest pair first.
_PAIRS = (
    ("instruction", "output"),
    ("instruction", "response"),
    ("prompt", "completion"),
    ("prompt", "response"),
    ("prompt", "answer"),
    ("question", "answer"),
    ("document", "summary"),
    ("article", "highlights"),
    ("dialogue", "summary"),
    ("text", "summary"),
    ("text", "headline"),
    ("source", "target"),
    ("input", "output"),
)
_MESSAGES = ("messages", "conversations", "conversation")
_CONTEXTS = ("input", "context")  # what a prompt is about, where a column has it
_ROLES = {"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "system": "system"}
_ALL_ROLES = "system, user or assistant"


class Dialogue(NamedTuple):
    """A conversation."""

    messages: list[dict[str, str]]  # each with "role" and "content"
    place: str  # in the file, for messages to people

    @property
    def text(self) -> str:
        """All that is said."""
        return "\n".join(message["content"] for message in self.messages)


class Columns(NamedTuple):
    """Which columns of a table make a conversation."""

    messages: str = ""  # a list of messages; "" where a row is a prompt and an answer
    prompt: str = ""
    context: str = ""  # follows the prompt where a row has it; "" where no column does
    answer: str = ""


def find_columns(names: Sequence[str], prompt: str = "", answer: str = "") -> Columns | None:
    """Return which columns make conversations, None where none plainly do.

    Args:
        names: of a table's columns.
        prompt: the prompt's, if that is known.
        answer: the answer's, likewise.
    """
    listed = next((name for name in _MESSAGES if name in names), "")
    if listed and not prompt and not answer:
        return Columns(messages=listed)
    for first, second in ((prompt, answer), *_PAIRS):
        pair = prompt or first, answer or second
        if all(pair) and all(name in names for name in pair):
            context = next((name for name in _CONTEXTS if name in names and name not in pair), "")
            return Columns("", pair[0], context, pair[1])
    return None


def read_dialogues(
    path: Path, report: Report, form: TableForm, prompt: str = "", answer: str = ""
) -> list[Dialogue]:
    """Return the conversations of a file, in its order; rows without an answer are left out, and counted.

    Args:
        path: a table: JSONL, JSON, CSV, TSV or Parquet.
        report: gets a line on what was taken and left out.
        form: how the table is read.
        prompt: the prompt's column; found where it is plain.
        answer: the answer's column, likewise.

    Raises:
        DataError: the file cannot be read, has not got the columns, a row's messages are none, or no row has
            an answer.
    """
    table = read_table(path, report, form)
    columns = find_columns(list(table.columns), prompt, answer)
    if columns is None:
        raise DataError(
            f"{table.name} must have conversations (a column messages), or prompts and answers (such as "
            f"{', '.join(' and '.join(pair) for pair in _PAIRS[:3])}), but has {', '.join(table.columns)}: "
            "say which with task.prompt_column and task.answer_column"
        )
    made = _from_messages if columns.messages else _from_pair
    rows = [made(table, columns, row) for row in range(table.num_rows)]
    found = [each for each in rows if each is not None]
    said = columns.messages or " and ".join(filter(None, columns[1:]))
    report(f"{table.name}: conversations are {said}; left out {len(rows) - len(found):,} without an answer")
    if not found:
        raise DataError(f"{table.name} must have rows with an answer, found none")
    return found


def _from_pair(table: Table, columns: Columns, row: int) -> Dialogue | None:
    values = (table.columns[name][row] if name else "" for name in columns[1:])
    prompt, context, answer = ("" if value is None else str(value).strip() for value in values)
    if not answer or not prompt + context:
        return None
    asked = "\n\n".join(part for part in (prompt, context) if part)
    messages = [{"role": "user", "content": asked}, {"role": "assistant", "content": answer}]
    return Dialogue(messages, table.place(row))


def _from_messages(table: Table, columns: Columns, row: int) -> Dialogue | None:
    given, place = table.columns[columns.messages][row], table.place(row)
    if not isinstance(given, list):
        raise DataError(f"{table.name}, {place} must have a list in {columns.messages}")
    messages = [_message(each, f"{table.name}, {place}") for each in given]
    said = collections.Counter(message["role"] for message in messages if message["content"])
    return Dialogue(messages, place) if said["assistant"] else None


def _message(value: Any, where: str) -> dict[str, str]:
    """A message with our names of roles, from `role` and `content` or from `from` and `value`."""
    if isinstance(value, Mapping):
        role, content = value.get("role", value.get("from")), value.get("content", value.get("value"))
        if role in _ROLES and isinstance(content, str):
            return {"role": _ROLES[role], "content": content}
    raise DataError(
        f"{where} must have messages with a role ({_ALL_ROLES}) and a text as content, got {value!r:.80}"
    )
