"""Sentences as words with fields, such as parts of speech: CoNLL-U, IOB2 and JSONL, read and written.

The Universal Dependencies describe CoNLL-U (https://universaldependencies.org/format.html): ten columns, an
empty line after each sentence. Of multiword tokens the words are kept, which are what is tagged, and of empty
nodes nothing. IOB2 is the word and its tag, or columns between them, or the number, word and tag of Universal
NER. JSONL has an object a sentence: "words", "spaces_after", and a list for each field.
"""

import json
import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import IO, Any, NamedTuple, TypeGuard

from llm_jax.base.errors import DataError
from llm_jax.data.rows import Fault, decoded, naming_faults
from llm_jax.data.text_files import printable, unpacked

_COLUMNS = ("id", "form", "lemma", "upos", "xpos", "feats", "head", "deprel", "deps", "misc")
FIELDS = ("lemma", "upos", "xpos")  # columns that are kept
_ENDS = (".conllu", ".conll", ".iob2", ".iob", ".bio")  # of names of files with sentences
MISC = {"entity": "NER", "pinyin": "Pinyin", "phones": "Phones"}  # fields that MISC has, under these keys
_TAG = re.compile(r"O|[BI]-\S+")
_LONGEST = 1_000_000  # characters of a line
_TEXT = re.compile(r"#\s*text\s*=\s*(.*)")

Line = tuple[int, str]


class Sentence(NamedTuple):
    """Words in their order, and what is known of each."""

    words: list[str]
    spaces_after: list[bool]  # whether a space follows in the text
    # "upos", "xpos", "lemma", "entity" (IOB2), "pinyin", "phones"; "_" is nothing.
    fields: dict[str, list[str]]
    line: int = 0  # of the file, on which its rows begin

    @property
    def text(self) -> str:
        """The sentence as it is written."""
        pairs = zip(self.words, self.spaces_after, strict=True)
        return "".join(word + " " * space for word, space in pairs).rstrip(" ")


def read_sentences(path: Path, report: Callable[[str], None], limit: int = 256_000_000) -> list[Sentence]:
    """Return the sentences of a file, as far as the limit allows.

    Args:
        path: CoNLL-U, IOB2 or JSONL, gzip too; its beginning says which.
        report: gets a line on what was taken.
        limit: characters of words and fields.

    Raises:
        DataError: the file cannot be read, is empty or damaged.
    """
    sentences: list[Sentence] = []
    size, is_cut = 0, False
    for sentence in iterate_sentences(path):
        size += sum(map(len, chain(sentence.words, *sentence.fields.values())))
        if is_cut := size > limit:
            break
        sentences.append(sentence)
    name = printable(str(path))
    if is_cut:
        report(
            f"warning: of {name} only the first {len(sentences):,} sentences are taken; text_limit_mb "
            f"({limit // 1_000_000}) leaves out the rest"
        )
    words = sum(len(sentence.words) for sentence in sentences)
    report(f"{name}: took {len(sentences):,} sentences, {words:,} words")
    return sentences


def iterate_sentences(path: Path) -> Iterator[Sentence]:
    """Yield the sentences of a file of any size; errors are those of `read_sentences`."""
    name = printable(str(path))
    number = 0
    with _reading(path, name) as lines:
        first = next(((at, line) for at, line in lines if line.strip()), None)
        if first is None:
            raise DataError(f"{name} must hold sentences, but is empty")
        lines = chain([first], lines)
        if re.match(r'\s*\{\s*"', first[1]):
            found: Iterator[Sentence] = map(_from_json, lines)
        else:
            found = (_from_columns(block) for block in _blocks(lines))
        for sentence in found:
            number += bool(sentence.words)
            if sentence.words:
                yield sentence
    if not number:
        raise DataError(f"{name} must hold sentences, found only comments")


def holds_sentences(path: Path) -> bool:
    """Return whether a file has sentences of words: by its name, and one of JSON lines by the first of them.

    Raises:
        DataError: it cannot be read.
    """
    name = path.name.removesuffix(".gz").lower()
    if not name.endswith(".jsonl"):
        return name.endswith(_ENDS)
    with _reading(path, printable(str(path))) as lines:
        first = next((line for _, line in lines if line.strip()), "")
    return first.lstrip().startswith("{") and '"words"' in first


def align(words: Sequence[str], text: str) -> list[bool] | None:
    """Return whether a space follows each word in the text; None where the words do not make up the text."""
    at, spaces = len(text) - len(text.lstrip()), []
    for word in words:
        if not text.startswith(word, at):
            return None
        at += len(word)
        after = len(text) - len(text[at:].lstrip())
        spaces.append(after > at)
        at = after
    return spaces if at == len(text) else None


@contextmanager
def _reading(path: Path, name: str) -> Iterator[Iterator[Line]]:
    """The lines of a file with their numbers."""
    try:
        with (
            naming_faults(name),
            path.open("rb") as file,
            unpacked(file) as stream,
            decoded(stream, "strict", "\n") as text,
        ):
            yield _numbered(text)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{name} cannot be read: {getattr(error, 'strerror', None) or error}") from None


def _numbered(text: IO[str]) -> Iterator[Line]:
    number = 0
    while line := text.readline(_LONGEST + 1):
        number += 1
        if len(line) > _LONGEST:
            raise Fault(f"line {number} must have at most {_LONGEST:,} characters")
        yield number, line.rstrip("\r\n")


def _blocks(lines: Iterable[Line]) -> Iterator[list[Line]]:
    """The lines between empty ones."""
    block: list[Line] = []
    for number, line in lines:
        if line.strip():
            block.append((number, line))
        elif block:
            yield block
            block = []
    if block:
        yield block


def _from_columns(block: list[Line]) -> Sentence:
    """A sentence of CoNLL-U or IOB2; without words if there are only comments."""
    text = next((found[1] for _, line in block if (found := _TEXT.fullmatch(line))), "")
    rows = [(number, line) for number, line in block if not _is_comment(line)]
    split = [(number, line.split("\t") if "\t" in line else line.split()) for number, line in rows]
    split = [(number, fields) for number, fields in split if fields[0] != "-DOCSTART-"]
    if not split:
        return Sentence([], [], {})
    is_conllu = len(split[0][1]) == len(_COLUMNS) and split[0][1][0][0].isdecimal()
    sentence = _conllu(split) if is_conllu else _iob2(split)
    aligned = None if is_conllu else align(sentence.words, text)
    return sentence._replace(spaces_after=aligned or sentence.spaces_after)


def _is_comment(line: str) -> bool:
    """Whether a line of a treebank is one; a word may be #, too, and has columns after it."""
    return line.startswith("# ") or (line.startswith("#") and "\t" not in line)


def _conllu(rows: list[tuple[int, list[str]]]) -> Sentence:
    words, spaces = [], []
    wholes: dict[int, bool] = {}  # of multiword tokens: the last word's number, and whether a space follows
    fields: dict[str, list[str]] = {name: [] for name in FIELDS}
    misc: list[dict[str, str]] = []
    until = 0
    for number, columns in rows:
        if len(columns) != len(_COLUMNS):
            raise Fault(
                f"line {number} must have the 10 columns of CoNLL-U, divided by tabs, got {len(columns)}"
            )
        row = dict(zip(_COLUMNS, columns, strict=True))
        pairs = {pair.partition("=")[0]: pair.partition("=")[2] for pair in row["misc"].split("|")}
        space = pairs.get("SpaceAfter") != "No"
        if whole := re.fullmatch(r"(\d+)-(\d+)", row["id"]):
            until = int(whole[2])
            wholes[until] = space
        elif row["id"] == str(len(words) + 1):
            words.append(row["form"])
            spaces.append(wholes.get(len(words), space) if len(words) >= until else False)
            misc.append(pairs)
            for name in FIELDS:
                fields[name].append(row[name])
        elif not re.fullmatch(r"\d+\.\d+", row["id"]):
            raise Fault(f"line {number} must have the number {len(words) + 1}, got {row['id']!r:.40}")
    for name, key in MISC.items():
        if any(key in pairs for pairs in misc):
            fields[name] = [_unescaped(pairs.get(key, "_")) for pairs in misc]
    kept = {name: values for name, values in fields.items() if set(values) != {"_"} or name in MISC}
    return Sentence(words, spaces, kept, rows[0][0])


def _iob2(rows: list[tuple[int, list[str]]]) -> Sentence:
    # As Universal NER has it.
    numbered = all(len(columns) > 2 and columns[0] == str(at) for at, (_, columns) in enumerate(rows, 1))
    words, tags = [], []
    for number, columns in rows:
        if len(columns) < 2:
            raise Fault(f"line {number} must have a word and its tag, got {' '.join(columns)!r:.80}")
        word, tag = columns[1:3] if numbered else (columns[0], columns[-1])
        if not _TAG.fullmatch(tag):
            raise Fault(f"line {number} must have a tag of IOB2 (O, B-PER, I-PER ...), got {tag!r:.40}")
        words.append(word)
        tags.append(tag)
    return Sentence(words, [True] * len(words), {"entity": tags}, rows[0][0])


def _from_json(numbered: Line) -> Sentence:
    number, line = numbered
    if not line.strip():
        return Sentence([], [], {})
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise Fault(f"line {number} must be a JSON object: {error}") from None
    words = record.get("words") if isinstance(record, dict) else None
    if not _are_texts(words):
        raise Fault(f'line {number} must have "words", a list of texts')
    spaces = record.get("spaces_after", [True] * len(words))
    fields = {name: value for name, value in record.items() if name not in ("words", "spaces_after", "text")}
    for name, value in fields.items():
        if not _are_texts(value) or len(value) != len(words):
            raise Fault(f"line {number} must have a text of {name!r:.40} for each of its {len(words)} words")
    if not isinstance(spaces, list) or [type(each) for each in spaces] != [bool] * len(words):
        raise Fault(f'line {number} must have true or false in "spaces_after" for each of its words')
    return Sentence(words, spaces, fields, number)


def _are_texts(value: Any) -> TypeGuard[list[str]]:
    return isinstance(value, list) and all(isinstance(each, str) for each in value)


def _unescaped(value: str) -> str:
    return re.sub(r"\\([\\p])", lambda found: "|" if found[1] == "p" else "\\", value)
