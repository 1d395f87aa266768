"""Chinese words, parts of speech and entities by rjieba, pinyin by pypinyin.

rjieba's tags are those of ICTCLAS, which begin with a letter for the part of speech.
"""

import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

from llm_jax.base.errors import UserError
from llm_jax.data.treebanks import Sentence, align

HAN = re.compile("[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]")
_ENTITIES = {"nr": "PER", "ns": "LOC", "nt": "ORG"}  # beginnings of tags
_PARTS_OF_SPEECH = {
    tag: part
    for part, tags in {
        "PROPN": "nr ns nt nz",
        "NOUN": "n s t f q j g l vn",
        "VERB": "v i",
        "ADJ": "a b z",
        "ADV": "d",
        "NUM": "m",
        "PRON": "r",
        "ADP": "p",
        "CCONJ": "c",
        "PART": "u y k h",
        "INTJ": "e o",
        "X": "eng zg",
    }.items()
    for tag in tags.split()
}
_END = re.compile("(?<=[。！？!?…])(?![。！？!?…”’」』）)])|(?<=[。！？!?…][”’」』）)])")


def annotate_chinese(text: str) -> Iterator[Sentence]:
    """Yield the sentences of a paragraph with "upos", "xpos" (rjieba's own), "entity" and "pinyin".

    Raises:
        UserError: a library is missing.
    """
    for part in _END.split(text):
        tagged = [(word.strip(), tag) for word, tag in _library("rjieba").tag(part, True) if word.strip()]
        if tagged:
            words, tags = [word for word, _ in tagged], [tag for _, tag in tagged]
            spaces = align(words, part)
            assert spaces is not None
            fields = {
                "upos": [_part_of_speech(word, tag) for word, tag in tagged],
                "xpos": tags,
                "entity": [f"B-{_ENTITIES[tag[:2]]}" if tag[:2] in _ENTITIES else "O" for tag in tags],
                "pinyin": pinyin(words),
            }
            yield Sentence(words, spaces, fields)


def pinyin(words: list[str]) -> list[str]:
    """Return how each word is spoken: syllables with the number of their tone, as "yin2 hang2"; "_" for one
    without Chinese characters. Which reading a character has follows from its word.

    Raises:
        UserError: the library is missing.
    """
    library = _library("pypinyin")

    def spoken(word: str) -> str:
        syllables = library.lazy_pinyin(
            word, style=library.Style.TONE3, errors="ignore", neutral_tone_with_five=True
        )
        return " ".join(syllables) or "_"

    return [spoken(word) if HAN.search(word) else "_" for word in words]


def _part_of_speech(word: str, tag: str) -> str:
    if tag[:1] == "x":
        return "PUNCT" if not any(map(str.isalnum, word)) else "X"
    return _PARTS_OF_SPEECH.get(tag) or _PARTS_OF_SPEECH.get(tag[:2]) or _PARTS_OF_SPEECH.get(tag[:1], "X")


@lru_cache(maxsize=2)
def _library(name: str) -> Any:
    try:
        if name == "rjieba":
            import rjieba as library
        else:
            import pypinyin as library
    except ImportError:
        raise UserError(f'Chinese is annotated by the package {name}: pip install "llm-jax[nlp]"') from None
    return library
