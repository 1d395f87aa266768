"""Sentences of words into files: CoNLL-U, IOB2 or JSON lines, which `treebanks` reads again."""

import json
import re
from collections.abc import Iterable
from typing import IO

from llm_jax.data.treebanks import FIELDS, MISC, Sentence


def write_sentences(sentences: Iterable[Sentence], file: IO[str], kind: str) -> None:
    """Write sentences, one after another.

    Args:
        sentences: what is written.
        file: open for text.
        kind: "conllu", "iob2" (the field "entity" alone) or "jsonl".
    """
    write = {"conllu": _as_conllu, "iob2": _as_iob2, "jsonl": _as_json}[kind]
    for number, sentence in enumerate(sentences, 1):
        file.write(write(sentence, number))


def _as_conllu(sentence: Sentence, number: int) -> str:
    nothing = ["_"] * len(sentence.words)
    columns = [sentence.fields.get(name, nothing) for name in FIELDS]
    lines = [f"# sent_id = {number}", f"# text = {_inline(sentence.text)}"]
    for at, word in enumerate(sentence.words):
        misc = [
            f"{key}={_escaped(sentence.fields[name][at])}"
            for name, key in MISC.items()
            if name in sentence.fields and sentence.fields[name][at] != "_"
        ]
        misc += ["SpaceAfter=No"] * (not sentence.spaces_after[at])
        values = (_inline(word), *(_inline(column[at]) for column in columns))
        lines.append("\t".join((str(at + 1), *values, *"____", "|".join(misc) or "_")))
    return "\n".join(lines) + "\n\n"


def _as_iob2(sentence: Sentence, number: int) -> str:
    tags = sentence.fields.get("entity", ["O"] * len(sentence.words))
    lines = [f"{_inline(word)}\t{tag}\n" for word, tag in zip(sentence.words, tags, strict=True)]
    return "".join(lines) + "\n"


def _as_json(sentence: Sentence, number: int) -> str:
    record = {"words": sentence.words, "spaces_after": sentence.spaces_after, **sentence.fields}
    return json.dumps(record, ensure_ascii=False) + "\n"


def _inline(value: str) -> str:
    """The value in one column: white space other than a space would end it."""
    return re.sub(r"[\t\n\r]", " ", value) or "_"


def _escaped(value: str) -> str:
    return _inline(value).replace("\\", "\\\\").replace("|", "\\p")
