"""Our tokenizers in other programs' words: any text has the same ids there, or nothing is written."""

import json
from functools import lru_cache
from typing import Any

import numpy as np
import pytest
import tokenizers as library
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_jax.base.errors import DataError
from llm_jax.tokenization.byte_pair import named_tokenizer, trained_tokenizer
from llm_jax.tokenization.compact import compact
from llm_jax.tokenization.from_gguf import CUTS, gguf_tokenizer_json
from llm_jax.tokenization.from_huggingface import FileTokenizer
from llm_jax.tokenization.plain import ByteTokenizer, CharacterTokenizer
from llm_jax.tokenization.protocol import Tokenizer, decode
from llm_jax.tokenization.to_gguf import composes_accents, gguf_tokenizer
from llm_jax.tokenization.to_huggingface import tokenizer_json
from llm_jax.tokenization.train_bpe import train_bpe
from tests.tokenization.test_file_tokenizer import KINDS as FILES
from tests.tokenization.test_file_tokenizer import SAMPLE
from tests.tokenization.test_gguf_tokenizer import gguf_metadata, sentencepiece_metadata

PARTS = [
    "'ſ",
    "'S",
    "I'LL",
    "they've",
    "1234567",
    "١٢",
    "  ",
    "\n",
    "\r\n ",
    "\t",
    "\u3000",
    " hums",
    "漢",
    "é",
]
TEXT = st.text() | st.lists(st.sampled_from(PARTS) | st.text(max_size=3)).map("".join)
OURS = ["bytes", "characters", "bpe", "cl100k_base", "compact, shared"]


@pytest.fixture(scope="module")
def ours() -> dict[str, tuple[Tokenizer, FileTokenizer, library.Tokenizer]]:
    """Each tokenizer of ours, its content run by our class for files, and by the library alone."""
    bpe = train_bpe(SAMPLE * 3, 310)
    known: dict[str, Tokenizer] = {
        "bytes": ByteTokenizer(),
        "characters": CharacterTokenizer(SAMPLE),
        "bpe": bpe,
        "cl100k_base": named_tokenizer("cl100k_base"),
        "compact, shared": compact(bpe, bpe.encode(SAMPLE[:50]), 1, "share"),
    }
    content = {
        kind: cl100k_base() if kind == "cl100k_base" else json.loads(json.dumps(tokenizer_json(tokenizer)))
        for kind, tokenizer in known.items()
    }
    return {
        kind: (
            known[kind],
            FileTokenizer(content[kind]),
            library.Tokenizer.from_str(json.dumps(content[kind])),
        )
        for kind in known
    }


@pytest.mark.parametrize("kind", OURS)
@settings(max_examples=200, deadline=None)
@given(text=TEXT)
def test_any_text_has_our_ids_in_other_programs(ours: Any, kind: str, text: str) -> None:
    tokenizer, of_file, raw = ours[kind]
    ids = tokenizer.encode(text).tolist()
    assert of_file.encode(text).tolist() == ids
    assert raw.encode(text).ids == ids
    assert raw.decode(ids, skip_special_tokens=False) == text == decode(of_file, ids)


@pytest.mark.parametrize("kind", OURS)
def test_real_prose_has_our_ids_in_other_programs(ours: Any, kind: str, prose: Any) -> None:
    tokenizer, of_file, raw = ours[kind]
    text = prose.read_text(encoding="utf-8")
    ids = tokenizer.encode(text).tolist()
    assert of_file.encode(text).tolist() == ids == raw.encode(text).ids


def test_special_tokens_of_a_named_vocabulary_keep_their_ids(ours: Any) -> None:
    tokenizer, of_file, raw = ours["cl100k_base"]
    assert of_file.token_id("<|endoftext|>") == 100257 == raw.token_to_id("<|endoftext|>")
    assert of_file.vocab_size == tokenizer.vocab_size
    assert 100257 not in of_file.encode("<|endoftext|>")
    assert raw.encode("<|endoftext|>").ids == [100257]


def test_a_file_goes_out_as_it_came() -> None:
    content = FILES["byte-level"]()
    assert tokenizer_json(FileTokenizer(content)) == content


def test_what_no_file_can_say_is_refused() -> None:
    bpe = train_bpe(SAMPLE * 3, 310)
    with pytest.raises(DataError, match="spells rare words takes pieces apart"):
        tokenizer_json(compact(bpe, bpe.encode(SAMPLE), 1, "spell"))
    with pytest.raises(DataError, match="characters with ▁"):
        tokenizer_json(CharacterTokenizer("a▁"))
    ranks = {bytes([byte]): byte for byte in range(256)}
    with pytest.raises(DataError, match="must be two others, joined"):
        tokenizer_json(trained_tokenizer(ranks | {b"abc": 256}, CUTS["gpt-2"][0]))
    with pytest.raises(DataError, match="must cut words as this program does"):
        tokenizer_json(trained_tokenizer(ranks, r"\w+|\W+"))


def back(content: Any, rows: int, **chat: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Settings of a GGUF file, and the content that is read out of them."""
    metadata = gguf_tokenizer(content, rows, chat)
    return metadata, gguf_tokenizer_json(metadata)


@pytest.mark.parametrize("pre", CUTS)
def test_a_tokenizer_that_came_out_of_a_gguf_file_goes_back(pre: str) -> None:
    metadata = gguf_metadata(pre)
    content = gguf_tokenizer_json(metadata)
    written, again = back(content, len(metadata["tokenizer.ggml.tokens"]))
    assert again == content
    assert written["tokenizer.ggml.pre"] == pre
    assert written["tokenizer.ggml.token_type"].tolist() == metadata["tokenizer.ggml.token_type"]


@pytest.mark.parametrize("prefix", [True, False])
def test_a_tokenizer_of_sentencepiece_goes_back(prefix: bool) -> None:
    content = gguf_tokenizer_json(sentencepiece_metadata(prefix))
    written, again = back(content, 280)
    assert again == content
    assert written["tokenizer.ggml.add_space_prefix"] is prefix


@pytest.mark.parametrize("kind", ["bytes", "bpe"])
@settings(max_examples=100, deadline=None)
@given(text=TEXT)
def test_our_tokenizers_have_the_same_ids_out_of_a_gguf_file(ours: Any, kind: str, text: str) -> None:
    tokenizer, of_file, _ = ours[kind]
    again = FileTokenizer(back(of_file.to_dict()["content"], tokenizer.vocab_size + 2)[1])
    assert again.encode(text).tolist() == tokenizer.encode(text).tolist()


def test_qwens_and_llamas_own_files_are_known_by_how_they_cut() -> None:
    content = gguf_tokenizer_json(gguf_metadata("llama-bpe"))
    splits = content["pre_tokenizer"]["pretokenizers"]
    splits[0]["pattern"]["Regex"] = (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
        r"|\s*[\r\n]+|\s+(?!\S)|\s+"
    )
    assert back(content, 304)[0]["tokenizer.ggml.pre"] == "llama-bpe"
    content = gguf_tokenizer_json(gguf_metadata("qwen2")) | {"normalizer": {"type": "NFC"}}
    assert composes_accents(content)
    assert back(content, 304)[0]["tokenizer.ggml.pre"] == "qwen2"


def test_where_a_text_ends_is_what_is_known_or_an_id_that_no_text_has(ours: Any) -> None:
    """llama.cpp takes an id of its own where the file says none, and would stop at every comma."""
    content, size = ours["bpe"][1].to_dict()["content"], 310
    metadata, _ = back(content, size)
    never = metadata["tokenizer.ggml.eos_token_id"]
    assert ours["bpe"][0].token_bytes(never) == b"\xff"
    assert back(content, size + 3)[0]["tokenizer.ggml.eos_token_id"] == size
    content = gguf_tokenizer_json(gguf_metadata())
    metadata, _ = back(content, 304, eos="<|im_end|>", bos="!", eos_ids=[300, 7], template="{{ messages }}")
    assert metadata["tokenizer.ggml.eos_token_id"] == 300
    assert metadata["tokenizer.ggml.eot_token_id"] == 7
    assert metadata["tokenizer.ggml.bos_token_id"] == content["model"]["vocab"]["!"]
    assert metadata["tokenizer.chat_template"] == "{{ messages }}"
    assert metadata["tokenizer.ggml.add_bos_token"] is False


@lru_cache
def cl100k_base() -> Any:
    return tokenizer_json(named_tokenizer("cl100k_base"))


REFUSED = {
    "characters": (lambda: tokenizer_json(CharacterTokenizer("abc")), 300, "single characters"),
    "unigram": (FILES["unigram"], 300, "Unigram is not written"),
    "a row too few": (lambda: tokenizer_json(ByteTokenizer()), 255, "must have a row for each id"),
    "a name twice": (
        lambda: gguf_tokenizer_json(gguf_metadata()) | {"added_tokens": [{"id": 1, "content": "[PAD305]"}]},
        306,
        "a name of its own",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_llama_cpp_would_do_otherwise_is_refused(name: str) -> None:
    make, rows, message = REFUSED[name]
    with pytest.raises(DataError, match=message):
        gguf_tokenizer(make(), rows, {})


def leave_one_out(content: dict[str, Any]) -> None:
    pieces = ["".join(merge) for merge in content["model"]["merges"]]
    twice = next(at for at, piece in enumerate(pieces) if pieces.count(piece) > 1)
    del content["model"]["merges"][twice]


def other_spaces(content: dict[str, Any]) -> None:
    content["normalizer"]["normalizers"].pop()


@pytest.mark.parametrize("change", [leave_one_out, other_spaces])
def test_merges_that_scores_cannot_say_are_refused(change: Any) -> None:
    content = json.loads(json.dumps(gguf_tokenizer_json(sentencepiece_metadata(True))))
    change(content)
    with pytest.raises(DataError, match="in another order, or adds other spaces"):
        gguf_tokenizer(content, 280, {})


def test_every_merge_is_what_joins_when_a_piece_is_made_alone() -> None:
    bpe = train_bpe(SAMPLE * 3, 310)
    content = tokenizer_json(bpe)
    ids = content["model"]["vocab"]
    for left, right in content["model"]["merges"]:
        token = ids[left + right]
        assert bpe.halves(token) == (ids[left], ids[right])
    assert len(content["model"]["merges"]) == 310 - 256
    assert np.array_equal(sorted(ids.values()), np.arange(310))
