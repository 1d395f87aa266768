"""Calls into the libraries of tokenizers: any text works or is refused in a line, and Ctrl-C is heard."""

import hashlib
import json
import os
import random
import signal
import sys
import threading
from functools import cache
from pathlib import Path

import pytest

from llm_jax.base.bars import shown
from llm_jax.base.errors import DataError
from llm_jax.tokenization import byte_pair, train_bpe
from llm_jax.tokenization.byte_pair import RankTokenizer, named_tokenizer, trained_tokenizer
from llm_jax.tokenization.from_dict import tokenizer_from_dict
from llm_jax.tokenization.from_huggingface import FileTokenizer
from llm_jax.tokenization.libraries import LONG, call_on_text
from llm_jax.tokenization.protocol import Tokenizer, decode
from llm_jax.tokenization.text_bytes import own_sizes
from llm_jax.tokenization.to_huggingface import _CUTS, tokenizer_json

MIXED = "Ask, then wait: it's 12,500.75 lamps!  It hums…\n\n\tDON'T she'll naïve é 漢字、かな。 <b> x_y ++ "


@cache
def trained() -> RankTokenizer:
    return train_bpe.train_bpe(MIXED * 3, 300)


@cache
def tokenizer(kind: str) -> Tokenizer:
    if kind == "cl100k_base":
        return named_tokenizer(kind)
    return FileTokenizer(tokenizer_json(trained())) if kind == "file" else trained()


@pytest.mark.parametrize("kind", ["cl100k_base", "bpe", "file"])
def test_a_million_spaces_are_encoded(kind: str) -> None:
    text = " " * (200_000 if kind == "file" else 1_000_000) + "a"  # the library of files knows no bound
    ids = tokenizer(kind).encode(text)
    assert own_sizes(tokenizer(kind), ids).sum() == len(text)
    assert decode(tokenizer(kind), ids[-2:]).strip(" ") == "a"


@pytest.mark.parametrize("pattern", [*_CUTS.values(), named_tokenizer("cl100k_base")._encoding._pat_str])
@pytest.mark.parametrize("seed", range(4))
def test_a_long_text_is_cut_only_where_that_changes_no_id(
    pattern: str, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    ranks = {trained().token_bytes(token): token for token in range(trained().vocab_size)}
    ours, words = trained_tokenizer(ranks, pattern.replace(r"\z", "$")), MIXED.split(" ")
    text = " ".join(random.Random(seed).choices(words, k=400)) + "  "
    whole = ours.encode(text)
    monkeypatch.setattr(byte_pair, "_MOST", 100)
    assert len(list(byte_pair._parts(text))) > 20
    assert ours.encode(text).tolist() == whole.tolist()
    assert ours.encode("x" * 1000).tolist() == trained().encode("x" * 100).tolist() * 10


class Panic(BaseException):
    """As a library in Rust raises it."""


def panicking(*_: object, **__: object) -> None:
    raise Panic("called `Result::unwrap()` on an `Err` value:\nStackOverflow")


@pytest.mark.parametrize("length", [30, LONG + 1])
@pytest.mark.parametrize("kind", ["cl100k_base", "bpe", "file"])
def test_a_panic_is_an_error_of_one_line_that_names_the_text(
    kind: str, length: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = type("Broken", (), dict.fromkeys(("encode_ordinary", "encode", "encode_batch_fast"), panicking))
    name = "_runner" if kind == "file" else "_encoding"
    monkeypatch.setattr(tokenizer(kind), name, broken())
    with pytest.raises(DataError) as refusal:
        tokenizer(kind).encode("x" * length)
    assert f"could not encode a text of {length:,} characters that begins 'xxx" in str(refusal.value)
    assert str(refusal.value).endswith("`Err` value: StackOverflow")


def test_a_panic_while_a_vocabulary_is_trained_or_loaded_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    sound = trained().to_dict()
    with pytest.raises(DataError, match="could not load it"):
        tokenizer_from_dict(sound | {"pattern": "("})
    monkeypatch.setattr(train_bpe.trainers, "BpeTrainer", lambda **_: "none")
    with pytest.raises(DataError, match="could not train on a text of 3 characters"):
        train_bpe.train_bpe("abc", 300)


def test_ctrl_c_is_heard_while_a_library_works() -> None:
    ended = threading.Event()

    def work(_: str) -> None:
        try:
            hashlib.pbkdf2_hmac("sha256", b"", b"", 3_000_000)  # a second, in which Python hears nothing
        finally:
            ended.set()

    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in jobs in the background
    threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGINT)).start()
    try:
        with pytest.raises(KeyboardInterrupt):
            call_on_text("encode", work, "x" * (LONG + 1))
    finally:
        signal.signal(signal.SIGINT, before)
    assert not ended.is_set()
    ended.wait()


def test_training_bounds_pieces_and_leaves_words_alone(prose: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lengths = [len(piece) for piece in train_bpe.train_reference("a" * 4000 + "\n" * 4000, 273).get_vocab()]
    assert 500 < max(lengths) <= 1000
    text = prose.read_text() + "漢字" * 400 + "-" * 999 + " " * 999
    bounded = json.loads(train_bpe.train_reference(text, 600).to_str())
    monkeypatch.setattr(train_bpe, "_LONGEST_PIECE", 10**5)
    assert json.loads(train_bpe.train_reference(text, 600).to_str()) == bounded


def test_a_bar_on_a_terminal_that_is_gone_ends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    class Gone:
        encoding, isatty = "utf-8", lambda _: True

        def write(self, _: str) -> None:
            raise OSError(5, "Input/output error")

        flush = fileno = lambda _: None

    monkeypatch.setattr(sys, "stderr", Gone())
    with shown("work", 10) as told:
        told(5)
