"""Laws of tokenizers that a tokenizer.json describes."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tokenizers as library
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_jax.tokenization.from_dict import tokenizer_from_dict
from llm_jax.tokenization.from_huggingface import BYTE_PIECES, FileTokenizer, read_tokenizer_file
from llm_jax.tokenization.protocol import decode, decode_bytes, fingerprint
from llm_jax.tokenization.streaming import StreamDecoder
from llm_jax.tokenization.train_bpe import train_reference

SAMPLE = "The salesperson said: “it hums when it is cold.” 99 lamps!\n\tnaïve 漢字 MASK"
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "MASK"]
# Common words as their files say, but markers.
DISGUISED = ["<think>", "</s>", "[INST]", "<｜User｜>"]
PARTS = st.sampled_from([*SPECIAL, *DISGUISED, "  ", "\n", " hums", "漢", "é", "1", "\0 3 \0", " 3 "])
TEXT = st.text() | st.lists(PARTS | st.text(max_size=3)).map("".join)


def byte_level() -> dict[str, Any]:
    tokenizer = train_reference(SAMPLE * 3, 300)
    tokenizer.add_special_tokens(SPECIAL)
    tokenizer.add_tokens([*DISGUISED, "    "])
    return json.loads(tokenizer.to_str())


def byte_fallback(prefix: bool = True) -> dict[str, Any]:
    """As Llama 2's, where a text gets a space before it, or as Gemma's, where it does not."""
    pieces = ["<unk>", "<s>", "</s>", *BYTE_PIECES, "▁", "h", "i", "hi", "▁hi", "漢", "<", "s", ">", "/"]
    merges = [("h", "i"), ("▁", "hi")]
    tokenizer = library.Tokenizer(
        library.models.BPE(
            {piece: n for n, piece in enumerate(pieces)}, merges, unk_token="<unk>", byte_fallback=True
        )
    )
    steps = [library.normalizers.Replace(" ", "▁")]
    tokenizer.normalizer = library.normalizers.Sequence([library.normalizers.Prepend("▁")] * prefix + steps)
    tokenizer.add_special_tokens(["<unk>", "<s>"])
    tokenizer.add_tokens(["</s>"])
    return json.loads(tokenizer.to_str())


def unigram() -> dict[str, Any]:
    pieces = ["<unk>", "</s>", *BYTE_PIECES, "▁", "h", "i", "hi", "<", "/", "s", ">"]
    scores = [(piece, 0.0 if piece in ("<unk>", "</s>") else -len(piece) - 5.0) for piece in pieces]
    tokenizer = library.Tokenizer(library.models.Unigram(scores, unk_id=0, byte_fallback=True))
    tokenizer.pre_tokenizer = library.pre_tokenizers.Metaspace(prepend_scheme="never")
    tokenizer.add_special_tokens(["<unk>"])
    tokenizer.add_tokens(["</s>"])
    return json.loads(tokenizer.to_str())


KINDS: dict[str, Callable[[], dict[str, Any]]] = {
    "byte-level": byte_level,
    "with a space before": byte_fallback,
    "without a space before": lambda: byte_fallback(prefix=False),
    "unigram": unigram,
}
PREFIX = {"with a space before": " "}


@pytest.fixture(scope="module")
def files() -> dict[str, FileTokenizer]:
    return {kind: FileTokenizer(content()) for kind, content in KINDS.items()}


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=100, deadline=None)
@given(text=TEXT)
def test_any_text_comes_back_whole_and_streamed(
    files: dict[str, FileTokenizer], kind: str, text: str
) -> None:
    tokenizer = files[kind]
    ids = tokenizer.encode(text)
    assert ids.dtype == np.int32
    assert ids.size == 0 or 0 <= ids.min() <= ids.max() < tokenizer.vocab_size
    wanted = text if kind == "byte-level" or not text else PREFIX.get(kind, "") + text.replace("▁", " ")
    assert decode(tokenizer, ids) == wanted
    stream = StreamDecoder(tokenizer)
    assert "".join(stream.push(int(token)) for token in ids) + stream.finish() == wanted


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=100, deadline=None)
@given(text=TEXT)
def test_text_never_makes_a_marker(files: dict[str, FileTokenizer], kind: str, text: str) -> None:
    markers = {files[kind].token_id(marker) for marker in [*SPECIAL, *DISGUISED, "<s>", "<unk>"]}
    assert not markers & set(files[kind].encode(text).tolist())


@pytest.mark.parametrize("kind", KINDS)
def test_a_tokenizer_rebuilt_from_its_description_is_the_same(
    files: dict[str, FileTokenizer], kind: str
) -> None:
    tokenizer = files[kind]
    again = tokenizer_from_dict(json.loads(json.dumps(tokenizer.to_dict())))
    assert (again.name, again.vocab_size) == (tokenizer.name, tokenizer.vocab_size)
    assert fingerprint(again) == fingerprint(tokenizer)
    assert again.encode(SAMPLE + "é").tolist() == tokenizer.encode(SAMPLE + "é").tolist()


def test_what_runs_gives_the_ids_of_the_library(files: dict[str, FileTokenizer]) -> None:
    text = SAMPLE.replace("MASK", "hums    when")
    for kind, content in KINDS.items():
        reference = library.Tokenizer.from_str(json.dumps(content()))
        assert files[kind].encode(text).tolist() == reference.encode(text, add_special_tokens=False).ids


def test_nothing_is_put_around_a_text_nor_cut_off(files: dict[str, FileTokenizer]) -> None:
    reference = library.Tokenizer.from_str(json.dumps(byte_level()))
    reference.post_processor = library.processors.TemplateProcessing(
        single="<|im_start|> $A", special_tokens=[("<|im_start|>", reference.token_to_id("<|im_start|>"))]
    )
    reference.enable_truncation(4)
    reference.enable_padding(length=99)
    tokenizer = FileTokenizer(json.loads(reference.to_str()))
    assert tokenizer.encode(SAMPLE).tolist() == files["byte-level"].encode(SAMPLE).tolist()


def test_ways_to_a_marker_inside_the_model_are_shut() -> None:
    content = byte_level()
    model, marker = content["model"], content["added_tokens"][3]
    assert marker["content"] == "MASK"
    model["vocab"] |= {piece: 300 + n for n, piece in enumerate(("MA", "MAS", "ĠMASK", "MASK"))}
    model["merges"] = [["M", "A"], ["MA", "S"], ["MAS", "K"], ["Ġ", "MASK"], *model["merges"]]
    content["added_tokens"] = [marker | {"id": 303}]
    for whole_words in (False, True):
        tokenizer = FileTokenizer(content | {"model": model | {"ignore_merges": whole_words}})
        ids = tokenizer.encode("MASK").tolist()
        assert [tokenizer.token_bytes(token) for token in ids] == [b"MAS", b"K"]
        assert tokenizer.token_id("MASK") == 303


def test_a_byte_without_an_id_is_left_out_and_no_unknown_takes_its_place() -> None:
    content = byte_level()
    content["model"]["vocab"]["unused"] = content["model"]["vocab"].pop("Ā")  # the byte 0
    content["model"]["unk_token"] = "<|endoftext|>"
    tokenizer = FileTokenizer(content)
    assert decode(tokenizer, tokenizer.encode("a\0b")) == "ab"


def test_added_spaces_are_words_and_found_in_text(files: dict[str, FileTokenizer]) -> None:
    tokenizer = files["byte-level"]
    assert tokenizer.encode("    ").tolist() == [tokenizer.token_id("    ")]


def test_special_tokens_have_ids_and_no_bytes_and_disguised_ones_are_seen(
    files: dict[str, FileTokenizer],
) -> None:
    tokenizer = files["byte-level"]
    assert [tokenizer.token_id(content) for content in SPECIAL] == [300, 301, 302, 303]
    assert [tokenizer.token_bytes(token) for token in (300, 301, 302, 303, 10**6)] == [b""] * 5
    thought = tokenizer.token_id("<think>")
    assert thought is not None
    assert tokenizer.token_bytes(thought) == b"<think>"
    assert tokenizer.token_id("<|im_nothing|>") is None
    assert tokenizer.token_id("Ġ") == tokenizer.encode(" ")
    assert tokenizer.vocab_size == 300 + len(SPECIAL) + len(DISGUISED) + 1


def test_bytes_of_single_ids_are_those_of_their_pieces(files: dict[str, FileTokenizer]) -> None:
    tokenizer = files["with a space before"]
    pieces = {"▁hi": b" hi", "<0xE4>": b"\xe4", "漢": "漢".encode(), "<s>": b"", "</s>": b"</s>"}
    for piece, wanted in pieces.items():
        token = tokenizer.token_id(piece)
        assert token is not None
        assert tokenizer.token_bytes(token) == wanted
    assert decode_bytes(tokenizer, tokenizer.encode("hi 語")) == " hi 語".encode()


def test_lone_surrogates_become_the_replacement_character(files: dict[str, FileTokenizer]) -> None:
    for tokenizer in files.values():
        assert "�" in decode(tokenizer, tokenizer.encode("a\ud800b"))


def test_text_that_looks_like_our_own_names_for_markers_makes_none(files: dict[str, FileTokenizer]) -> None:
    tokenizer = files["byte-level"]
    text = "\0 300 \0\0 304 \0"
    assert decode(tokenizer, tokenizer.encode(text)) == text


def test_a_sound_file_is_read(tmp_path: Path, files: dict[str, FileTokenizer]) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(byte_level()), encoding="utf-8")
    assert read_tokenizer_file(path).to_dict() == files["byte-level"].to_dict()
