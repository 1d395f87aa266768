"""The bytes that tokens stand for are the text's own, whatever a tokenizer makes of it."""

import dataclasses
import json
import math
from functools import cache
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_jax.config.model import ModelConfig
from llm_jax.config.run import Config, DataConfig, TrainConfig
from llm_jax.data.store import prepare_store
from llm_jax.evaluation.metrics import Score
from llm_jax.language_model.model import LanguageModel
from llm_jax.model.decoder import init_params
from llm_jax.runs.data import Materials
from llm_jax.tokenization.byte_pair import named_tokenizer
from llm_jax.tokenization.compact import compact
from llm_jax.tokenization.from_huggingface import FileTokenizer
from llm_jax.tokenization.plain import ByteTokenizer, CharacterTokenizer
from llm_jax.tokenization.protocol import Tokenizer, utf8
from llm_jax.tokenization.text_bytes import encode_sized
from llm_jax.tokenization.train_bpe import train_bpe
from tests.tokenization.test_file_tokenizer import SAMPLE, byte_fallback, byte_level, unigram

ACCENT = "\u0301"  # joins the letter before it where a normalizer composes
PARTS = st.sampled_from(
    ["e" + ACCENT, ACCENT, "\u00e9", "▁", " ", "  hi", "😀", "漢字", "ᄒ\u1161\u11ab", "</s>", "\u212b", "\n"]
)
TEXT = st.text() | st.lists(PARTS | st.text(max_size=2)).map("".join)
METASPACE = {"type": "Metaspace", "replacement": "▁", "split": True}


def changed(content: dict[str, Any], **parts: Any) -> FileTokenizer:
    return FileTokenizer(json.loads(json.dumps(content | parts)))


@cache
def tokenizers() -> dict[str, Tokenizer]:
    fallback, base = byte_fallback(prefix=False), named_tokenizer("cl100k_base")
    always, first = ({**METASPACE, "prepend_scheme": scheme} for scheme in ("always", "first"))
    no_lines = {"type": "Replace", "pattern": {"String": "\n"}, "content": ""}
    return {
        "bytes": ByteTokenizer(),
        "characters": CharacterTokenizer(SAMPLE),
        "tiktoken": base,
        "trained here": train_bpe(SAMPLE * 3, 280),
        "compact": compact(base, base.encode(SAMPLE), 2, "spell"),
        "byte-level": FileTokenizer(byte_level()),
        "composed": changed(byte_level(), normalizer={"type": "NFC"}),
        "taken apart": changed(byte_level(), normalizer={"type": "NFD"}),
        "replaced by likeness": changed(byte_level(), normalizer={"type": "NFKC"}),
        "without line breaks": changed(byte_level(), normalizer=no_lines),
        "space before": FileTokenizer(byte_fallback()),
        "space before the text": changed(fallback, normalizer=None, pre_tokenizer=first),
        "space before each part": changed(fallback, normalizer=None, pre_tokenizer=always),
        "unigram": changed(unigram(), pre_tokenizer=always),
    }


@pytest.mark.parametrize("kind", tokenizers())
@settings(max_examples=60, deadline=None)
@given(text=TEXT)
def test_the_bytes_of_a_texts_tokens_are_the_texts(kind: str, text: str) -> None:
    ids, sizes = encode_sized(tokenizers()[kind], text)
    assert ids.tolist() == tokenizers()[kind].encode(text).tolist()
    assert len(sizes) == len(ids)
    assert (sizes >= 0).all()
    assert sizes.sum() == (len(utf8(text)) if len(ids) else 0)


@pytest.mark.parametrize("kind", tokenizers())
def test_where_tokens_give_the_text_back_each_has_its_own_bytes(kind: str) -> None:
    tokenizer = tokenizers()[kind]
    ids, sizes = encode_sized(tokenizer, "hi 漢 it")
    own = [len(tokenizer.token_bytes(int(token))) for token in ids]
    if "space before" in kind or kind == "unigram":
        assert own[0] - sizes[0] == 1
        own[0] = sizes[0]
    assert sizes.tolist() == own


def sized(kind: str, text: str) -> list[int]:
    return encode_sized(tokenizers()[kind], text).sizes.tolist()


def test_a_space_before_the_text_stands_for_nothing() -> None:
    assert sized("space before", "漢") == [0, 3]
    assert sized("space before", " hi") == [0, 3]
    assert sized("space before the text", " hi") == [3]
    assert sized("unigram", "hi") == [0, 2]


def test_what_is_composed_stands_for_what_it_was_made_of() -> None:
    # Two bytes of one accented letter, three in the text; then x.
    assert sized("composed", f"e{ACCENT}x") == [3, 0, 1]
    assert sized("composed", "\u00e9x") == [1, 1, 1]
    assert sized("taken apart", "\u00e9x") == [2, 0, 0, 1]


def test_what_no_token_stands_for_counts_with_the_token_before_it_or_the_first() -> None:
    assert sized("without line breaks", "\n\nhi\n漢\n") == [3, 2, 1, 1, 2]


def test_a_mark_of_spaces_in_the_text_has_its_own_three_bytes() -> None:
    assert sized("space before the text", "▁hi") == [5]
    assert sized("unigram", "▁hi") == [3, 2]


def test_a_lone_surrogate_counts_as_what_it_becomes() -> None:
    assert sized("composed", f"\ud800e{ACCENT}") == [1, 1, 1, 3, 0]


@pytest.mark.parametrize("kind", ["composed", "space before", "unigram", "bytes"])
def test_a_store_counts_the_texts_bytes_and_a_score_is_over_them(
    kind: str, tmp_path: Path, tiny: ModelConfig
) -> None:
    text = f"hi e{ACCENT} 漢▁ " * 20
    (tmp_path / "text.txt").write_text(text, encoding="utf-8")
    settings = {"corpus": str(tmp_path / "text.txt"), "prepared": tmp_path, "compact_vocab": False}
    config = DataConfig(**settings, tokenizer="inherited", validation_fraction=0.3)
    store = prepare_store(config, print, tokenizers()[kind])
    sizes, train, held_out = store.sizes, store.num_bytes("train"), store.num_bytes("validation")
    assert train + held_out == len(text.encode())
    assert int(np.sum(sizes)) == held_out
    assert len(sizes) == len(store.tokens("validation"))
    assert store.alters_text == (kind != "bytes")

    model = dataclasses.replace(tiny, vocab_size=store.tokenizer.vocab_size)
    params = init_params(jax.random.key(0), model)
    material = Materials(Config(model=model, data=config, train=TrainConfig(init_from="x")), store)
    score, scored = Score(**material.evaluate(params)), material.scored(params)
    assert score.bytes == held_out - sizes[0]
    assert score.bits_per_byte == pytest.approx(scored.nats_N.sum() / math.log(2) / score.bytes)
    assert scored.begin == train + sizes[0]
    assert scored.end_N[-1] == len(text.encode())
    ends = np.cumsum(encode_sized(store.tokenizer, text).sizes)[-len(scored.end_N) :]
    assert scored.end_N.tolist() == ends.tolist()


def test_a_space_before_the_text_does_not_alter_what_is_held_out(tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("hi it hums 漢 " * 20, encoding="utf-8")
    config = DataConfig(
        corpus=str(tmp_path / "text.txt"), prepared=tmp_path, compact_vocab=False, tokenizer="inherited"
    )
    stores = [prepare_store(config, print, tokenizers()[kind]) for kind in ("space before", "composed")]
    assert [store.alters_text for store in stores] == [False, False]


def test_a_text_that_is_given_is_scored_over_its_own_bytes(tiny: ModelConfig) -> None:
    for kind in ("composed", "space before"):
        tokenizer = tokenizers()[kind]
        model = dataclasses.replace(tiny, vocab_size=tokenizer.vocab_size, context_length=32)
        trained = LanguageModel(model, init_params(jax.random.key(0), model), tokenizer, {})
        text = f"e{ACCENT}e{ACCENT} hi"
        alone, after = trained.score(text), trained.score(text, prompt="hi")
        assert alone.bytes == len(text.encode()) - encode_sized(tokenizer, text).sizes[0]
        assert after.bytes == len(text.encode())


def test_where_a_token_stands_before_every_text_all_of_its_bytes_count(tiny: ModelConfig) -> None:
    content = byte_level()
    token = next(each["id"] for each in content["added_tokens"] if each["content"] == "<|endoftext|>")
    start = {"SpecialToken": {"id": "<|endoftext|>", "type_id": 0}}
    before = {
        "type": "TemplateProcessing",
        "single": [start, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [{"Sequence": {"id": name, "type_id": 0}} for name in "AB"],
        "special_tokens": {
            "<|endoftext|>": {"id": "<|endoftext|>", "ids": [token], "tokens": ["<|endoftext|>"]}
        },
    }
    tokenizer = changed(content, normalizer={"type": "NFC"}, post_processor=before)
    model = dataclasses.replace(tiny, vocab_size=tokenizer.vocab_size, context_length=32)
    trained = LanguageModel(model, init_params(jax.random.key(0), model), tokenizer, {})
    text = f"e{ACCENT}e{ACCENT} hi"
    assert trained.score(text).bytes == len(text.encode())


def test_no_text_has_no_tokens() -> None:
    for kind in ("bytes", "composed"):
        assert encode_sized(tokenizers()[kind], "").sizes.dtype == np.int64
        assert sized(kind, "") == []
