"""Fields of words that a model reads beside their tokens: those that a file has, and how words are spoken
and written.
"""

import re
from collections.abc import Sequence

from llm_jax.annotation.chinese import pinyin
from llm_jax.annotation.english import phones
from llm_jax.base.errors import DataError
from llm_jax.config.rules import require
from llm_jax.config.task import TaskConfig
from llm_jax.data.factors import Fields
from llm_jax.data.label_files import SEGMENTS
from llm_jax.data.word_forms import FORMS

_WORD = re.compile(r"\s*(?:[^\W\d]+|\d+|[^\w\s]+)")
_MADE = {"pinyin": pinyin, "phones": phones, **FORMS}


def names_of(task: TaskConfig) -> list[str]:
    """Return the fields that a task's models read.

    Raises:
        UserError: one is given twice, tells the label, or is not known before words are.
    """
    names = [name.strip() for name in task.factors.split(",")] if task.factors else []
    segments = task.label_column == SEGMENTS
    said = f"task.factors ({task.factors})"
    require(
        {
            f"{said} must be names of fields, each once, divided by commas": all(names)
            and len(set(names)) == len(names),
            f"{said} must leave out {task.label_column}, which is what the model tells": (
                task.label_column not in names
            ),
            f"{said} must be of pinyin, pairs, window where the model tells which characters begin a word: "
            "all else is known of words": not segments or set(names) <= {"pinyin", "pairs", "window"},
        }
    )
    return names


def words_of(text: str) -> list[str]:
    """Return the words of a text that is classified, each with what stands before it; joined they are the
    text.
    """
    found = _WORD.findall(text)
    rest = text[sum(map(len, found)) :]
    return [*found[:-1], found[-1] + rest] if found else [text]


def read_fields(
    names: Sequence[str], task: TaskConfig, pieces: Sequence[str], fields: Fields, row: int
) -> Fields:
    """Return the fields with these names of a text.

    Args:
        names: of `names_of`.
        task: whose model reads them.
        pieces: words of the text, or its characters.
        fields: those that the file has.
        row: the text's number, for messages.

    Raises:
        DataError: one is not there.
        UserError: the library that says how words are spoken is missing.
    """
    found = {}
    words = [piece.strip() for piece in pieces]
    for name in names:
        if task.label_column == SEGMENTS and name == "pinyin":
            found[name] = _syllables(words)
        elif name in fields:
            found[name] = fields[name]
        elif name in _MADE:
            found[name] = _MADE[name](words)
        else:
            raise DataError(
                f"text {row} must have the field {name!r:.40} of task.factors for each of its words: "
                "`llm-jax prepare --annotate` writes files that have upos, xpos and entity"
            )
    return found


def _syllables(letters: Sequence[str]) -> list[str]:
    """How each character is spoken, as all of the text together suggests."""
    found = pinyin(["".join(letters)])[0].split()
    is_spoken = [pinyin([letter])[0] != "_" for letter in letters]
    if sum(is_spoken) != len(found):
        return pinyin(list(letters))
    rest = iter(found)
    return [next(rest) if spoken else "_" for spoken in is_spoken]
