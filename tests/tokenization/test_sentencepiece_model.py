"""tokenizer.model files beside the library that makes them."""

import io
import random
from pathlib import Path
from typing import Any

import pytest
import sentencepiece

from llm_jax.base.errors import DataError
from llm_jax.interop.huggingface.tokenizer_files import read_directory_tokenizer
from llm_jax.tokenization.from_huggingface import FileTokenizer
from llm_jax.tokenization.from_sentencepiece import read_sentencepiece, sentencepiece_content
from llm_jax.tokenization.protocol import decode
from tests.conftest import ROOT

LINES = [
    line for line in (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8").splitlines() if line
]
PLAIN = {"normalization_rule_name": "identity", "remove_extra_whitespaces": False}
KINDS: dict[str, dict[str, Any]] = {
    "BPE": {"model_type": "bpe", **PLAIN},
    "BPE without a space before": {
        **{"model_type": "bpe", "add_dummy_prefix": False, "user_defined_symbols": ["lamp", "<sep>"]},
        **PLAIN,
    },
    "BPE of digits": {
        "model_type": "bpe",
        "split_digits": True,
        "allow_whitespace_only_pieces": True,
        **PLAIN,
    },
    "BPE without spaces": {"model_type": "bpe", "normalization_rule_name": "identity"},
    "Unigram": {"model_type": "unigram", **PLAIN},
    "Unigram across words": {"model_type": "unigram", "split_by_whitespace": False, **PLAIN},
    "Unigram without spaces": {"model_type": "unigram", "normalization_rule_name": "identity"},
}


def trained(**options: Any) -> bytes:
    file = io.BytesIO()
    given = {"byte_fallback": True, "vocab_size": 600, "minloglevel": 2} | options
    sentencepiece.SentencePieceTrainer.train(sentence_iterator=iter(LINES), model_writer=file, **given)
    return file.getvalue()


@pytest.fixture(scope="module")
def texts() -> list[str]:
    chance = random.Random(0)
    strings = [
        "".join(chance.choices("ab 1２\n\t'sST.,漢é😀▁  ", k=chance.randint(0, 40))) for _ in range(500)
    ]
    return [
        "",
        " ",
        "  ",
        "▁",
        " ▁ ",
        "  a  b  ",
        "\u00a0x",
        "lamp <sep> lamps",
        "<s></s><unk>",
        *strings,
        *LINES[:60],
    ]


@pytest.mark.parametrize("kind", KINDS)
def test_any_text_has_the_ids_of_sentencepiece(kind: str, texts: list[str]) -> None:
    raw = trained(**KINDS[kind])
    theirs = sentencepiece.SentencePieceProcessor(model_proto=raw)
    ours = FileTokenizer(sentencepiece_content(raw))
    assert ours.vocab_size == theirs.vocab_size()
    marker = ours.token_id("<sep>")  # with us never of a text
    for text in texts:
        if marker is None or "<sep>" not in text:
            assert ours.encode(text).tolist() == theirs.encode(text), text
    special = {0, 1, 2} | {marker}
    assert not special & set(ours.encode("<s></s><unk><sep>").tolist())


@pytest.mark.parametrize("model_type", ["bpe", "unigram"])
def test_the_name_of_a_byte_in_a_text_is_no_byte(model_type: str) -> None:
    tokenizer = FileTokenizer(sentencepiece_content(trained(model_type=model_type, **PLAIN)))
    for text in ("<0x41>", "a<0x0A> <0xFF>", "<<0x41>>"):
        assert decode(tokenizer, tokenizer.encode(text)) == " " + text


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"model_type": "bpe"}, "replaces letters"),
        ({"model_type": "char", "byte_fallback": False, **PLAIN}, "of BPE or Unigram"),
        ({"model_type": "bpe", "byte_fallback": False, **PLAIN}, "with byte_fallback"),
        ({"model_type": "bpe", "treat_whitespace_as_suffix": True, **PLAIN}, "puts spaces elsewhere"),
        ({"model_type": "bpe", "user_defined_symbols": ["lamp"], **PLAIN}, "has the word 'lamp'"),
    ],
)
def test_a_kind_that_is_not_known_is_refused(options: dict[str, Any], words: str, tmp_path: Path) -> None:
    (tmp_path / "tokenizer.model").write_bytes(trained(**options))
    with pytest.raises(DataError, match=words) as caught:
        read_sentencepiece(tmp_path / "tokenizer.model")
    assert "tokenizer.model: " in str(caught.value)


def test_a_damaged_file_is_refused_in_one_line(tmp_path: Path) -> None:
    raw = trained(model_type="bpe", vocab_size=400, **PLAIN)
    chance = random.Random(1)
    for _ in range(200):
        damaged = bytearray(raw[: chance.randint(0, 3000)])
        for at in chance.choices(range(len(damaged)), k=3) if damaged else ():
            damaged[at] = chance.randint(0, 255)
        with pytest.raises(DataError, match=r"\A.+\Z"):
            FileTokenizer(sentencepiece_content(bytes(damaged)))
    with pytest.raises(DataError, match="cannot be read"):
        read_sentencepiece(tmp_path / "none.model")


def test_a_directory_with_a_tokenizer_model_alone_is_read(tmp_path: Path) -> None:
    raw = trained(model_type="bpe", **PLAIN)
    (tmp_path / "tokenizer.model").write_bytes(raw)
    (tmp_path / "added_tokens.json").write_text('{"<|im_end|>": 600}')
    (tmp_path / "tokenizer_config.json").write_text('{"bos_token": "<s>", "eos_token": "<|im_end|>"}')
    tokenizer, remark = read_directory_tokenizer(tmp_path)
    assert (tokenizer.token_id("<|im_end|>"), tokenizer.token_id("<s>"), remark) == (600, 1, None)
    theirs = sentencepiece.SentencePieceProcessor(model_proto=raw)
    assert tokenizer.encode(LINES[0]).tolist() == theirs.encode(LINES[0])
    assert tokenizer.start_ids == ()
    for said, start_ids in (("true", (1,)), ("false", ())):  # as transformers puts it
        (tmp_path / "tokenizer_config.json").write_text(f'{{"add_bos_token": {said}}}')
        assert read_directory_tokenizer(tmp_path)[0].start_ids == start_ids
    (tmp_path / "tokenizer.model").write_bytes(b"IQ== 0\nIg== 1\n")
    with pytest.raises(DataError, match="must be a SentencePiece model, and is none; give --tokenizer with"):
        read_directory_tokenizer(tmp_path)
