"""Damaged tokenizer files are refused in one line."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llm_jax.base.errors import DataError
from llm_jax.tokenization.from_dict import tokenizer_from_dict
from llm_jax.tokenization.from_huggingface import FileTokenizer, read_tokenizer_file
from tests.tokenization.test_file_tokenizer import byte_level, unigram


def changed(path: str, value: Any) -> Callable[[dict[str, Any]], None]:
    def change(content: Any) -> None:
        *way, last = (int(key) if key.isdigit() else key for key in path.split("/"))
        for key in way:
            content = content[key]
        content[last] = value

    return change


DAMAGE = {
    "no model": (changed("model", None), "with a model"),
    "a list for a model": (changed("model", []), "with a model"),
    "another model": (changed("model/type", "WordPiece"), "BPE or Unigram"),
    "no vocabulary": (changed("model/vocab", None), "vocabulary"),
    "words for ids": (changed("model/vocab/a", "7"), "whole numbers"),
    "an id twice": (changed("model/vocab/a", 5), "twice"),
    "an id below zero": (changed("model/vocab/a", -1), "from 0 to"),
    "a huge id": (changed("model/vocab/a", 10**30), "from 0 to"),
    "a merge of nothing": (changed("model/merges", [["x", "no such piece"]]), "could not load"),
    "a merge that is a number": (changed("model/merges", [5]), "could not load"),
    "merges that are a number": (changed("model/merges", 5), "could not load"),
    "word ends": (changed("model/end_of_word_suffix", "</w>"), "end_of_word_suffix"),
    "added tokens in words": (changed("added_tokens", "all"), "added_tokens"),
    "an added token without id": (changed("added_tokens/0/id", None), "added_tokens"),
    "an added token with another id": (changed("added_tokens/0/id", 2**30), "says id"),
    "an added token half described": (
        changed("added_tokens", [{"id": 300, "content": "x"}]),
        "could not load",
    ),
    "a broken expression": (changed("pre_tokenizer/pretokenizers/0/pattern/Regex", "("), "could not load"),
    "words that are not bytes": (changed("pre_tokenizer", None), "neither"),
    "a table of replacements": (
        changed("normalizer", {"type": "Precompiled", "precompiled_charsmap": "AAAA"}),
        "table of replacements",
    ),
    "two lines": (changed("version", "1\n2"), "Unknown tokenizer version '1 2'"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_file_is_refused_in_one_line(tmp_path: Path, name: str) -> None:
    damage, words = DAMAGE[name]
    content = byte_level()
    damage(content)
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(content))
    with pytest.raises(DataError, match=words) as caught:
        read_tokenizer_file(path)
    assert "\n" not in str(caught.value)
    assert "tokenizer.json" in str(caught.value)
    with pytest.raises(DataError, match=words):
        tokenizer_from_dict({"kind": "file", "content": content})


def test_a_panic_of_the_library_is_one_line_too(monkeypatch: pytest.MonkeyPatch) -> None:
    content = byte_level()
    DAMAGE["a table of replacements"][0](content)
    monkeypatch.setattr("llm_jax.tokenization.from_huggingface._kinds", lambda component: ["ByteLevel"])
    with pytest.raises(DataError, match="could not load it: Precompiled"):
        FileTokenizer(content)


UNIGRAM_DAMAGE = {
    "no byte": (changed("model/vocab/9/0", "z"), "<0x07> is missing"),
    "no unknown": (changed("model/unk_id", None), "unk_id"),
    "a piece twice": (changed("model/vocab/9/0", "<0x08>"), "twice"),
    "no pairs": (changed("model/vocab", {"a": 0}), "pairs"),
    "words for scores": (changed("model/vocab/9/1", "0"), "pairs"),
    "an unknown that is not there": (changed("model/unk_id", 10**4), "could not load"),
    "no bytes": (changed("model/byte_fallback", False), "neither"),
}


@pytest.mark.parametrize("name", UNIGRAM_DAMAGE)
def test_a_damaged_unigram_is_refused(name: str) -> None:
    damage, words = UNIGRAM_DAMAGE[name]
    content = unigram()
    damage(content)
    with pytest.raises(DataError, match=words):
        FileTokenizer(content)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff\xfe\x00",
        b"[1, 2",
        b"7",
        b"[]",
        b"[" * 10**5 + b"]" * 10**5,
        b'{"model": {"vocab": {"a": ' + b"9" * 5000 + b"}}}",
        json.dumps(byte_level()).encode()[:-100],
    ],
    ids=["empty", "no UTF-8", "truncated list", "number", "list", "deep", "long number", "truncated"],
)
def test_what_is_no_tokenizer_file_is_refused_in_one_line(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "tokenizer.json"
    with pytest.raises(DataError, match="cannot be read"):
        read_tokenizer_file(path)
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"tokenizer\.json") as caught:
        read_tokenizer_file(path)
    assert "\n" not in str(caught.value)
