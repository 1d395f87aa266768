"""Sentences with fields: what CoNLL-U, IOB2 and JSONL say is read, rebuilt and written again."""

import gzip
import io
import re
from pathlib import Path

import pytest

from llm_jax.base.errors import DataError
from llm_jax.data.treebank_writer import write_sentences
from llm_jax.data.treebanks import (
    Sentence,
    align,
    holds_sentences,
    iterate_sentences,
    read_sentences,
)
from tests.support.shared_data import SharedData

TREEBANKS = {  # name -> sentences, words
    "ud_english_ewt_dev.conllu": (2001, 25147),
    "ud_chinese_gsdsimp_dev.conllu": (500, 12663),
    "uner_english_ewt_dev.iob2": (2001, 25149),
}
AWKWARD = [
    Sentence(
        ["Ann", "did", "n't", "|", "\\", "#"],
        [True, False, True, True, False, True],
        {
            "upos": ["PROPN", "AUX", "PART", "SYM", "SYM", "SYM"],
            "entity": ["B-PER", "O", "O", "O", "O", "O"],
            "pinyin": ["a|b", "_", "\\p", "_", "_", "_"],
        },
    ),
    Sentence(["漢字\u2028", "\u00a0x"], [False, False], {"xpos": ["n", "x"], "phones": ["_", "EH1 K S"]}),
]
WORDS = "1\tDo\tdo\tAUX\tVB\t_\t0\troot\t_\t_\n2\tgo\tgo\tVERB\tVB\t_\t1\tdep\t_\tSpaceAfter=No\n"


def read(folder: Path, content: str, name: str = "x") -> list[Sentence]:
    (folder / name).write_text(content, encoding="utf-8", newline="")
    return read_sentences(folder / name, lambda line: None)


@pytest.mark.parametrize("name", TREEBANKS)
def test_every_text_of_a_treebank_is_rebuilt(name: str, shared_data: SharedData) -> None:
    remarks: list[str] = []
    path = shared_data / name
    sentences = read_sentences(path, remarks.append)
    count, words = TREEBANKS[name]
    assert remarks == [f"{path}: took {count:,} sentences, {words:,} words"]
    texts = re.findall(r"(?m)^# text = (.*)$", path.read_text(encoding="utf-8"))
    assert [sentence.text for sentence in sentences] == [text.strip() for text in texts]
    for sentence in sentences:
        assert {len(values) for values in sentence.fields.values()} == {len(sentence.words)}


def test_words_of_a_multiword_token_are_kept_and_empty_nodes_are_not(tmp_path: Path) -> None:
    lines = [
        *("1-2\tdon't\t_\t_\t_\t_\t_\t_\t_\tSpaceAfter=No", "1\tdo\t_\tAUX\t_\t_\t_\t_\t_\t_"),
        *("2\tn't\t_\tPART\t_\t_\t_\t_\t_\t_", "2.1\tgo\t_\tVERB\t_\t_\t_\t_\t_\t_"),
        "3\t!\t_\tPUNCT\t_\t_\t_\t_\t_\tNER=O",
    ]
    (sentence,) = read(tmp_path, "# text = don't!\r\n" + "\r\n".join(lines) + "\r\n")
    assert sentence.words == ["do", "n't", "!"]
    assert sentence.text == "don't!"
    assert sentence.fields == {"upos": ["AUX", "PART", "PUNCT"], "entity": ["_", "_", "O"]}
    assert sentence.line == 2


@pytest.mark.parametrize("kind", ["conllu", "jsonl"])
def test_what_is_written_is_read_again(kind: str, tmp_path: Path) -> None:
    out = io.StringIO()
    write_sentences(AWKWARD, out, kind)
    found = read(tmp_path, out.getvalue())
    assert [sentence._replace(line=0) for sentence in found] == AWKWARD
    (tmp_path / "x.gz").write_bytes(gzip.compress(out.getvalue().encode()))
    assert list(iterate_sentences(tmp_path / "x.gz")) == found


def test_tags_are_written_and_read_again(tmp_path: Path) -> None:
    out = io.StringIO()
    write_sentences(AWKWARD[:1], out, "iob2")
    (found,) = read(tmp_path, out.getvalue())
    assert (found.words, found.fields) == (AWKWARD[0].words, {"entity": AWKWARD[0].fields["entity"]})


def test_iob2_may_have_numbers_columns_between_or_spaces(tmp_path: Path) -> None:
    tags = ["O", "B-LOC"]
    for content in (
        "1\tin\tO\t-\t-\n2\tRome\tB-LOC\t-\tann\n",
        "-DOCSTART- -X- O O\n\nin IN I-PP O\nRome NNP I-NP B-LOC\n",
        "in\tO\nRome\tB-LOC",
        "# a comment\nin\tO\nRome\tB-LOC\n",
    ):
        (found,) = read(tmp_path, content)
        assert (found.words, found.fields) == (["in", "Rome"], {"entity": tags})
    for words in (["1", "2"], ["{", "#"]):
        assert read(tmp_path, "".join(f"{word}\tO\n" for word in words))[0].words == words


def test_words_are_aligned_with_their_text_or_not_at_all() -> None:
    assert align(["a", "b", "c"], " ab  c ") == [False, True, True]
    assert align(["a", "b"], "a") is None
    assert align(["a"], "ab") is None
    assert align([], " ") == []


BAD = {
    "empty": ("", "must hold sentences, but is empty"),
    "blank": ("\n\n", "must hold sentences, but is empty"),
    "comments": ("# text = a\n\n# b\n", "must hold sentences, found only comments"),
    "columns": (WORDS + "3\tx\tx\n", "line 3 must have the 10 columns of CoNLL-U, divided by tabs, got 3"),
    "number": (WORDS + WORDS, "line 3 must have the number 3, got '1'"),
    "tag": ("a\tO\nb\tPER\n", "line 2 must have a tag of IOB2 (O, B-PER, I-PER ...), got 'PER'"),
    "word alone": ("a\tO\nb\n", "line 2 must have a word and its tag, got 'b'"),
    "plain text": ("This is text.\n", "line 1 must have a tag of IOB2"),
    "json": ('{"words": ["a"]}\n{"words": "a"}\n', 'line 2 must have "words", a list of texts'),
    "cut": ('{"words": ["a"', "line 1 must be a JSON object"),
    "short field": ('{"words": ["a", "b"], "upos": ["X"]}', "a text of 'upos' for each of its 2 words"),
    "spaces": ('{"words": ["a"], "spaces_after": [1]}', 'true or false in "spaces_after"'),
    "long line": ("x" * 1_000_001, "line 1 must have at most 1,000,000 characters"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_damaged_treebank_is_refused_in_a_line(name: str, tmp_path: Path) -> None:
    content, said = BAD[name]
    with pytest.raises(DataError) as refused:
        read(tmp_path, content)
    line = str(refused.value)
    assert said in line
    assert str(tmp_path) in line
    assert line.isprintable()


@pytest.mark.parametrize(
    ("name", "text", "holds"),
    [
        ("a.conllu", "", True),
        ("A.IOB2.gz", "", True),
        ("a.jsonl", '\n{"words": ["a"]}\n', True),
        ("a.jsonl", '{"text": "a", "label": "b"}\n', False),
        ("a.jsonl", "", False),
        ("a.csv", "words\n", False),
    ],
)
def test_files_of_sentences_are_known_by_their_name_or_first_line(
    name: str, text: str, holds: bool, tmp_path: Path
) -> None:
    (tmp_path / name).write_text(text)
    assert holds_sentences(tmp_path / name) == holds


def test_another_encoding_and_a_cut_file_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"caf\xe9\tO\n")
    with pytest.raises(DataError, match=r"must be UTF-8 text, but has a byte \(0xe9\)"):
        read_sentences(path, print)
    path.write_bytes("café\tO\n".encode("utf-16"))
    assert read_sentences(path, lambda line: None)[0].words == ["café"]
    path.write_bytes(gzip.compress(WORDS.encode() * 99)[:-9])
    with pytest.raises(DataError, match="cannot be read: Compressed file ended"):
        read_sentences(path, print)


def test_no_more_sentences_are_taken_than_are_allowed(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("word\tO\n\n" * 10)
    remarks: list[str] = []
    assert len(read_sentences(tmp_path / "x", remarks.append, limit=12)) == 2
    assert "only the first 2 sentences are taken" in remarks[0]
