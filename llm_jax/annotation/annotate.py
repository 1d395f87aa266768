"""Texts as sentences of words with what is known of each, Chinese and English, paragraph by paragraph."""

import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from llm_jax.annotation.chinese import HAN, annotate_chinese, pinyin
from llm_jax.annotation.english import annotate_english, phones
from llm_jax.base.bars import shown
from llm_jax.base.errors import DataError, UserError, writing
from llm_jax.base.files import made_whole
from llm_jax.data.treebank_writer import write_sentences
from llm_jax.data.treebanks import Sentence

_LATIN = re.compile("[A-Za-z\u00c0-\u024f]")
# Share of Chinese characters among letters: a word has about two of these, and five Latin ones.
_CHINESE = 0.3
_MOST = 20_000  # characters that are annotated at once
_KINDS = {".conllu": "conllu", ".jsonl": "jsonl", ".iob2": "iob2"}


def annotate_file(documents: Sequence[str], path: Path, report: Callable[[str], None]) -> dict[str, int]:
    """Write the sentences of documents to a file, which is there whole or not at all.

    Args:
        documents: texts.
        path: what is written; its name ends in .conllu, .jsonl or .iob2.
        report: gets a line on what was written and what was left out.

    Returns:
        How many "sentences" and "words" it has.

    Raises:
        DataError: no document has Chinese or English in it.
        UserError: a library is missing, or the file cannot be written.
    """
    kind = kind_of_output(path)
    counts = {"sentences": 0, "words": 0}
    left_out: list[str] = []

    def counted() -> Iterator[Sentence]:
        with shown("annotating", sum(map(len, documents))) as told:
            for sentence in annotate(documents, left_out.append, told):
                counts["sentences"] += 1
                counts["words"] += len(sentence.words)
                yield sentence
        if not counts["sentences"]:
            raise DataError(
                "a text that is annotated must have Chinese or English in it, and this has neither"
            )

    with writing(path), made_whole(path) as part, part.open("w", encoding="utf-8", newline="\n") as file:
        write_sentences(counted(), file, kind)
    if left_out:
        report(
            f"left out {len(left_out):,} paragraphs in other scripts, the first of them: {left_out[0]!r:.60}"
        )
    report(f"{path}: wrote {counts['sentences']:,} sentences, {counts['words']:,} words")
    return counts


def kind_of_output(path: Path) -> str:
    """Return "conllu", "jsonl" or "iob2" by the end of a file's name; UserError for any other."""
    if path.suffix.lower() not in _KINDS:
        raise UserError(f"{path} must end in {', '.join(_KINDS)}, which says what is written")
    return _KINDS[path.suffix.lower()]


def annotate(
    documents: Sequence[str],
    leave_out: Callable[[str], None] = lambda paragraph: None,
    told: Callable[[float], None] = lambda characters: None,
) -> Iterator[Sentence]:
    """Yield the sentences of documents, whose lines are paragraphs: Chinese where three letters of ten are
    Chinese characters, else English.

    Args:
        documents: texts.
        leave_out: gets the paragraphs that are neither, such as those in Greek.
        told: hears how many characters are done.

    Raises:
        UserError: a library is missing.
    """
    for document in documents:
        for line in document.splitlines(keepends=True):
            for paragraph in _pieces(line):
                if language := language_of_script(paragraph):
                    yield from (annotate_chinese if language == "zh" else annotate_english)(paragraph)
                elif any(map(str.isalpha, paragraph)):
                    leave_out(paragraph.strip())
                told(len(paragraph))


def pronounced(sentence: Sentence) -> Sentence:
    """Return a sentence, such as a treebank's, with "pinyin" where it has Chinese characters, and "phones"
    where it has Latin letters. UserError where a library is missing.
    """
    fields = dict(sentence.fields)
    if HAN.search(sentence.text):
        fields["pinyin"] = pinyin(sentence.words)
    if _LATIN.search(sentence.text):
        fields["phones"] = phones(sentence.words)
    return sentence._replace(fields=fields)


def language_of_script(text: str) -> str:
    """Return "zh" or "en" by a text's letters; '' where most are neither Chinese nor Latin, or none is."""
    letters = sum(map(str.isalpha, text))
    chinese, latin = len(HAN.findall(text)), len(_LATIN.findall(text))
    if chinese + latin < max(1, letters / 2):
        return ""
    return "zh" if chinese >= _CHINESE * (chinese + latin) else "en"


def _pieces(line: str) -> Iterator[str]:
    """A line in pieces that are not too long, cut at white space where there is some."""
    while len(line) > _MOST:
        cut = line.rfind(" ", _MOST // 2, _MOST) + 1 or _MOST
        yield line[:cut]
        line = line[cut:]
    if line:
        yield line
