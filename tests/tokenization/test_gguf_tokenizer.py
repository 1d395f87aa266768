"""Laws of tokenizers that GGUF metadata describe."""

import json
from functools import lru_cache
from typing import Any

import pytest
import tokenizers as library
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_jax.base.errors import DataError
from llm_jax.tokenization.from_gguf import CUTS, gguf_tokenizer_json, without_pre
from llm_jax.tokenization.from_huggingface import BYTE_PIECES, FileTokenizer
from llm_jax.tokenization.protocol import decode
from llm_jax.tokenization.to_huggingface import CL100K_CUT
from llm_jax.tokenization.train_bpe import train_reference
from tests.tokenization.test_file_tokenizer import SAMPLE, TEXT


def gguf_metadata(pre: str = "smollm") -> dict[str, Any]:
    vocabulary = json.loads(train_reference(SAMPLE * 3, 300).to_str())["model"]
    tokens = [*vocabulary["vocab"], "<|im_end|>", "<tool>", "[PAD1]", "  "]
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": pre,
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [1] * 300 + [3, 4, 5, 4],
        "tokenizer.ggml.merges": [" ".join(merge) for merge in vocabulary["merges"]],
    }


def pieces(cut: str, text: str) -> list[str]:
    split = library.pre_tokenizers.Split(library.Regex(cut), behavior="isolated")
    return [piece for piece, _ in split.pre_tokenize_str(text)]


@settings(max_examples=300, deadline=None)
@given(text=st.text(st.sampled_from("a Zé1'.sd\n\r\t 漢-"), max_size=16) | TEXT)
def test_llama_cpp_cuts_as_cl100k_but_at_the_end_of_a_text(text: str) -> None:
    text = text.replace("ſ", "s") + "a"
    assert pieces(CL100K_CUT, text) == pieces(*CUTS["dbrx"], text)
    assert pieces(CL100K_CUT, "a\n ") != pieces(*CUTS["dbrx"], "a\n ")


@pytest.mark.parametrize("pre", CUTS)
@settings(max_examples=50, deadline=None)
@given(text=TEXT)
def test_any_text_comes_back_whole_from_a_gguf_tokenizer(pre: str, text: str) -> None:
    tokenizer = gguf_tokenizer(pre)
    ids = tokenizer.encode(text).tolist()
    assert decode(tokenizer, ids) == text
    assert not {300, 301, 302} & set(ids)


@lru_cache
def gguf_tokenizer(pre: str) -> FileTokenizer:
    return FileTokenizer(gguf_tokenizer_json(gguf_metadata(pre)))


def test_a_gguf_tokenizer_has_the_ids_of_its_metadata() -> None:
    tokenizer = gguf_tokenizer("smollm")
    for token, piece in enumerate(gguf_metadata()["tokenizer.ggml.tokens"]):
        assert tokenizer.token_id(piece) == token
    assert tokenizer.vocab_size == 304
    seen = [tokenizer.token_bytes(token) for token in range(300, 304)]
    assert seen == [b"", b"<tool>", b"", b"  "]
    assert tokenizer.encode("a  b").tolist()[1] == 303


# As llama.cpp cuts them, seen by its ids.
WORDS = {
    "gpt-2": ["it", "'s", " IT", "'", "S", " x", "1234", "=", "\n\n", "\n", "go", "   ", " !"],
    "smollm": ["it", "'s", " IT", "'", "S", " x", *"1234", "=", "\n\n", "\n", "go", "   ", " !"],
    "llama-bpe": ["it", "'s", " IT", "'S", " x", "123", "4", "=\n\n\n", "go", "   ", " !"],
    "qwen2": ["it", "'s", " IT", "'S", " x", *"1234", "=\n\n\n", "go", "   ", " !"],
    "default": ["it", "'", "s", " IT", "'", "S", " x", "123", "4", "=", "\n\n", "\n", "go", "    ", "!"],
}


WORDS |= dict.fromkeys(("dbrx", "minicpm5", "deepseek-v3"), WORDS["llama-bpe"])
WORDS |= {"tekken": WORDS["qwen2"], "falcon": WORDS["default"]}
WORDS["gpt-4o"] = ["it's", " IT'S", " x", "123", "4", "=\n\n\n", "go", "   ", " !"]
WORDS["deepseek-coder"] = [
    *("it", "'", "s", " IT", "'", "S", " x", "1", "2", "3", "4", "=", "\n", "\n", "\n", "go", "   ", " !")
]
CASES = {
    "qwen2": ["aBc漢字かな", "#if"],
    "tekken": ["a", "Bc漢字かな", "#if"],
    "gpt-4o": ["a", "Bc漢字かな", "#if"],
    "deepseek-v3": ["aBc", "漢字かな", "#if"],
    "deepseek-coder": ["aBc", "漢字かな", "#", "if"],
    "falcon": ["aBc漢字かな", "#", "if"],
}


def words_of(pre: str, text: str) -> list[str]:
    content = gguf_tokenizer_json(gguf_metadata(pre))
    cutter = library.Tokenizer.from_str(json.dumps(content)).pre_tokenizer
    assert cutter is not None
    return [text[begin:end] for _, (begin, end) in cutter.pre_tokenize_str(text)]


@pytest.mark.parametrize("pre", CUTS)
def test_a_gguf_tokenizer_cuts_words_by_the_rule_it_names(pre: str) -> None:
    assert words_of(pre, "it's IT'S x1234=\n\n\ngo    !") == WORDS[pre]
    if pre in CASES:
        assert words_of(pre, "aBc漢字かな#if") == CASES[pre]


@pytest.mark.parametrize(
    ("other", "pre"),
    [
        *(("llama3", "llama-bpe"), ("llama-v3", "llama-bpe"), ("lfm2", "llama-bpe"), ("smaug-bpe", "dbrx")),
        *(("deepseek-r1-qwen", "qwen2"), ("megrez", "qwen2"), ("stablelm2", "qwen2"), ("olmo", "gpt-2")),
        *(
            ("starcoder", "smollm"),
            ("llama4", "gpt-4o"),
            ("phi-2", "gpt-2"),
            (None, "default"),
            ("", "default"),
        ),
    ],
)
def test_other_names_of_a_rule_mean_the_same(other: str | None, pre: str) -> None:
    metadata = gguf_metadata() | {"tokenizer.ggml.pre": other}
    if other is None:
        del metadata["tokenizer.ggml.pre"]
    assert gguf_tokenizer_json(metadata) == gguf_tokenizer_json(gguf_metadata(pre))
    assert bool(without_pre(metadata)) == (not other)
    assert without_pre({"tokenizer.ggml.model": "llama"}) is None


def test_a_word_in_the_vocabulary_stays_whole_only_where_llama_cpp_keeps_it() -> None:
    for pre, whole in (("llama-bpe", True), ("qwen2", False)):
        metadata = gguf_metadata(pre)
        metadata["tokenizer.ggml.tokens"][5] = "Ġxyz"
        tokenizer = FileTokenizer(gguf_tokenizer_json(metadata))
        assert (tokenizer.encode(" xyz").tolist() == [5]) is whole


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("model", "bert", "must be 'gpt2' or 'llama', got 'bert'"),
        ("model", None, "got None"),
        ("pre", "deepseek-llm", "must be one of gpt-2.*got 'deepseek-llm'; give --tokenizer with"),
        ("pre", ["qwen2"], "got"),
        ("tokens", None, "tokens is missing"),
        ("tokens", "abc", "list of str"),
        ("tokens", ["a", "b"], "for 2 tokens"),
        ("token_type", [1], "1 values for 304 tokens"),
        ("token_type", [1.0] * 304, "list of int"),
        ("token_type", [6] * 304, "has 6 for token 0"),
        ("merges", ["a b c"], "pairs"),
        ("merges", [["a", "b"]], "list of str"),
    ],
)
def test_gguf_metadata_that_cannot_be_used_are_refused_by_name(key: str, value: Any, words: str) -> None:
    with pytest.raises(DataError, match=words) as caught:
        gguf_tokenizer_json(gguf_metadata() | {f"tokenizer.ggml.{key}": value})
    assert "\n" not in str(caught.value)
    assert "tokenizer.ggml." in str(caught.value)


def test_gguf_tokens_must_differ() -> None:
    metadata = gguf_metadata()
    metadata["tokenizer.ggml.tokens"][7] = "a"
    with pytest.raises(DataError, match="twice"):
        gguf_tokenizer_json(metadata)


def sentencepiece_metadata(prefix: bool = True) -> dict[str, Any]:
    """Scores say "ab" before "bc", and "abc" only then."""
    joined = ["ab", "bc", "▁a", "abc", "▁▁", "covid", "co", "vid", "id"]
    letters = ["▁", *"abcovid漢<>"]
    tokens = ["<unk>", "<s>", "</s>", *BYTE_PIECES, *joined, *letters, "<pad>"]
    scores = [0.0] * 259 + [-float(n) for n in range(len(joined) + len(letters))] + [0.0]
    kinds = [2, 3, 3] + [6] * 256 + [1] * (len(joined) + len(letters)) + [5]
    return {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": kinds,
        "tokenizer.ggml.scores": scores,
        "tokenizer.ggml.add_space_prefix": prefix,
    }


@pytest.mark.parametrize("prefix", [True, False])
@settings(max_examples=100, deadline=None)
@given(text=TEXT | st.text("abc ▁covid"))
def test_any_text_comes_back_whole_from_sentencepiece(prefix: bool, text: str) -> None:
    tokenizer = sentencepiece(prefix)
    ids = tokenizer.encode(text).tolist()
    assert decode(tokenizer, ids) == (" " if prefix and text else "") + text.replace("▁", " ")
    assert not {0, 1, 2, tokenizer.token_id("<pad>")} & set(ids)


@lru_cache
def sentencepiece(prefix: bool) -> FileTokenizer:
    return FileTokenizer(gguf_tokenizer_json(sentencepiece_metadata(prefix)))


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("abc", "ab c"),
        ("bcab", "bc ab"),
        ("cabca", "c ab c a"),
        ("covid", "co v id"),
        ("   a", "▁▁ ▁a"),
        ("</s>é", "< <0x2F> <0x73> > <0xC3> <0xA9>"),
    ],
)
def test_sentencepiece_joins_by_score_and_never_to_an_unused_piece(text: str, pieces: str) -> None:
    metadata = sentencepiece_metadata(prefix=False)
    for piece, kind in (("abc", 5), ("vid", 5), ("covid", 5)):
        metadata["tokenizer.ggml.token_type"][metadata["tokenizer.ggml.tokens"].index(piece)] = kind
    tokenizer = FileTokenizer(gguf_tokenizer_json(metadata))
    assert tokenizer.encode(text).tolist() == [tokenizer.token_id(piece) for piece in pieces.split(" ")]
    assert sentencepiece(False).encode("abc").tolist() == [sentencepiece(False).token_id("abc")]


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("scores", None, "scores is missing"),
        ("scores", [0.0], "1 values for"),
        ("scores", [0.0] * 280, "must be finite and differ"),
        ("scores", [float("nan")] + [-float(n) for n in range(279)], "must be finite"),
        ("add_space_prefix", 1, "must be true or false, got 1"),
        ("token_type", [7] * 280, "has 7 for token 0"),
    ],
)
def test_sentencepiece_metadata_that_cannot_be_used_are_refused(key: str, value: Any, words: str) -> None:
    assert len(sentencepiece_metadata()["tokenizer.ggml.tokens"]) == 280
    with pytest.raises(DataError, match=words):
        gguf_tokenizer_json(sentencepiece_metadata() | {f"tokenizer.ggml.{key}": value})


@pytest.mark.parametrize(
    ("old", "new", "words"), [("c", "z", "has no 'c'"), ("abc", "a" * 10**6, "at most 1000 letters")]
)
def test_sentencepiece_with_pieces_that_cannot_be_joined_is_refused(old: str, new: str, words: str) -> None:
    metadata = sentencepiece_metadata()
    metadata["tokenizer.ggml.tokens"][metadata["tokenizer.ggml.tokens"].index(old)] = new
    with pytest.raises(DataError, match=words):
        gguf_tokenizer_json(metadata)
