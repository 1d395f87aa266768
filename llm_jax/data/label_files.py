"""Labelled texts out of files: rows of a table, of which one column is the label, and sentences of words."""

import collections
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from llm_jax.base.errors import DataError
from llm_jax.config.run import Config, DataConfig
from llm_jax.data.labelled import Example, Source
from llm_jax.data.tables import Table, TableForm, read_table
from llm_jax.data.text_files import printable
from llm_jax.data.treebanks import Sentence, read_sentences

Report = Callable[[str], None]

SEGMENTS = "segment"  # the field of where words begin, which every treebank has
_BEGINS, _GOES_ON = "B", "I"
# What columns and fields of labels are mostly called, the surest name first.
_LABELS = ("label", "labels", "class", "target", "category", "sentiment", "tag", "intent", "topic", "y")
_FIELDS = ("entity", "upos", "xpos")
_TEXTS = ("text", "sentence", "message", "content", "review", "title", "body", "tweet", "comment", "question")
_MOST_LABELS = 1000
_SHARE = 0.5  # of rows that may have labels of their own
_WORDS = 3  # on average, from which on a column is text


class Columns(NamedTuple):
    """Which columns of a table are text and label."""

    texts: tuple[str, ...]  # one, or those that are read together where none is plainly the text
    label: str


def read_examples(config: Config, report: Report) -> tuple[list[Example], Source]:
    """Return the labelled texts of the file that a configuration names, in its order, and what they are from.

    Raises:
        DataError: it cannot be read, or which column or field has the labels is not plain.
    """
    path, data, wanted = Path(config.data.corpus), config.data, config.task.label_column
    name = path.name.partition(".")[0] or "corpus"
    if config.task.name == "tagging":
        sentences = read_sentences(path, report, data.text_limit_mb * 1_000_000)
        field = find_field(path, sentences, wanted)
        report(f"{printable(str(path))}: labels of words are those of {field}")
        found = [sentence_example(each, number, field) for number, each in enumerate(sentences, 1)]
        return [each for each in found if each.pieces], Source(name, (), field)
    table = read_table(path, report, table_form(data))
    columns = find_columns(table, data.text_column, wanted)
    report(f"{table.name}: text is {' and '.join(columns.texts)}, label is {columns.label}")
    return _texts(table, columns, report), Source(name, columns.texts, columns.label)


def table_form(data: DataConfig) -> TableForm:
    """Return how a configuration reads a table."""
    kind = "auto" if data.format == "text" else data.format
    return TableForm(kind, limit=data.text_limit_mb * 1_000_000, errors=data.errors)


def find_columns(table: Table, text: str = "", label: str = "") -> Columns:
    """Return which column of a table is the text, and which the label.

    Args:
        table: of any columns.
        text: the text's, if that is known.
        label: the label's, likewise.

    Raises:
        DataError: there is no such column, or none is plainly the label.
    """
    for column, setting in ((text, "text_column"), (label, "label_column")):
        if column and column not in table.columns:
            raise DataError(
                f"{table.name} must have the column {column!r:.80} of {setting}, but has "
                f"{_listed(table.columns)}"
            )
    text = text or _likely(table, _TEXTS, _is_prose, {label}) or ""
    label = label or _likely(table, _LABELS, _are_labels, {text}) or _outermost(table, text)
    if not label:
        raise DataError(
            f"which column of {table.name} has the labels is not plain; set label_column (fit: --label) to "
            f"one of {_listed(table.columns)}"
        )
    others = tuple(name for name in table.columns if name and name != label)
    if not text and not others:
        raise DataError(f"{table.name} must have a column beside its labels ({label!r:.80}), and has none")
    return Columns((text,) if text else others, label)


def known_columns(table: Table, text: str, label: str) -> Columns:
    """Return the columns of a table to tell labels of, as training had them: the text's, or all but the
    label's, which may be missing.

    Raises:
        DataError: the text's is not there.
    """
    if text and text not in table.columns:
        raise DataError(
            f"{table.name} must have the column {text!r:.80} of texts, but has {_listed(table.columns)}"
        )
    return Columns(
        (text,) if text else tuple(name for name in table.columns if name and name != label), label
    )


def find_field(path: Path, sentences: Sequence[Sentence], wanted: str = "") -> str:
    """Return the field of a treebank's words that is their label; DataError where none is plain."""
    fields = list(dict.fromkeys(name for sentence in sentences for name in sentence.fields))
    if wanted in (*fields, SEGMENTS):
        return wanted
    if not wanted and (found := next((name for name in _FIELDS if name in fields), None)):
        return found
    raise DataError(
        f"{printable(str(path))} must have words with the field of label_column (fit: --label), one of "
        f"{_listed([*fields, SEGMENTS])}{f', got {wanted!r:.80}' if wanted else ''}"
    )


def pieces_of(words: Sequence[str], spaces_after: Sequence[bool]) -> list[str]:
    """Return words as the pieces of a text, each with the space before it."""
    spaces = ["", *(" " if space else "" for space in spaces_after[:-1])]
    return [space + word for space, word in zip(spaces, words, strict=True)]


def sentence_example(sentence: Sentence, number: int, field: str) -> Example:
    """Return a sentence with the labels of its words; of SEGMENTS, its characters, which have no spaces
    between them.
    """
    if field == SEGMENTS:
        letters = [letter for word in sentence.words for letter in word if not letter.isspace()]
        begins = [at == 0 for word in sentence.words for at in range(len("".join(word.split())))]
        return Example(letters, [_BEGINS if begin else _GOES_ON for begin in begins], number)
    labels = sentence.fields.get(field, ["_"] * len(sentence.words))
    return Example(pieces_of(sentence.words, sentence.spaces_after), labels, number, sentence.fields)


def row_text(table: Table, columns: Columns, row: int) -> str:
    """Return a row's text; "" where it has none."""
    if len(columns.texts) == 1:
        value = table.columns[columns.texts[0]][row]
        return "" if value is None else str(value).strip()
    values = ((name, table.columns[name][row]) for name in columns.texts)
    return "\n".join(f"{name}: {value}" for name, value in values if value is not None and value != "")


def _texts(table: Table, columns: Columns, report: Report) -> list[Example]:
    found, without_text, without_label = [], 0, 0
    for row, label in enumerate(table.columns[columns.label]):
        text = row_text(table, columns, row)
        if isinstance(label, list | dict):
            raise DataError(
                f"{table.name}, {table.place(row)} must have one label in {columns.label!r:.80}, got "
                f"{type(label).__name__}"
            )
        if not text:
            without_text += 1
        elif label is None or label == "":
            without_label += 1
        else:
            found.append(Example([text], [str(label)], table.numbers[row]))
    if without_text or without_label:
        report(f"{table.name}: left out {without_text:,} rows without text, {without_label:,} without label")
    return found


def _likely(
    table: Table, names: Sequence[str], holds: Callable[[Sequence[Any]], bool], but: set[str]
) -> str | None:
    """The column that is plainly what is looked for: by its values, and of several by its name."""
    found = [name for name, values in table.columns.items() if name not in but and holds(values)]
    by_name = {name.lower(): name for name in reversed(found)}
    named = next((by_name[name] for name in names if name in by_name), None)
    return named or (found[0] if len(found) == 1 else None)


def _outermost(table: Table, text: str) -> str:
    """The last column, or else the first, where one of them can be labels, as tables are mostly written."""
    names = [name for name in table.columns if name != text]
    ends = [names[-1], names[0]] if names else []
    return next((name for name in ends if _are_labels(table.columns[name])), "")


def _is_prose(values: Sequence[Any]) -> bool:
    texts = [value for value in values if isinstance(value, str) and value]
    return len(texts) > len(values) / 2 and sum(len(text.split()) for text in texts) >= _WORDS * len(texts)


def _are_labels(values: Sequence[Any]) -> bool:
    given = [value for value in values if value is not None and value != ""]
    if not given or any(isinstance(value, list | dict | float) for value in given):
        return False
    counts = collections.Counter(given)
    return 2 <= len(counts) <= min(_MOST_LABELS, max(2, _SHARE * len(given)))


def _listed(names: Sequence[str] | dict[str, Any]) -> str:
    shown = ", ".join(f"{name!r:.40}" for name in list(names)[:8])
    return shown + (f" and {len(names) - 8} more" if len(names) > 8 else "")
