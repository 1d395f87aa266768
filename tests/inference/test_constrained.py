"""Laws of constrained decoding: whatever the model would write, the text is what was asked for."""

import dataclasses
import itertools
import json
import re
import sys
from typing import Any

import jax
import numpy as np
import pytest

from llm_jax.base.errors import UserError
from llm_jax.config.decoding import SamplingConfig
from llm_jax.config.model import ModelConfig
from llm_jax.inference import constrained
from llm_jax.inference.constrained import constrained_tokens
from llm_jax.inference.grammar import Constraint, GrammarMasks, Vocabulary
from llm_jax.inference.request import Generation, decoding_layout
from llm_jax.language_model.model import LanguageModel
from llm_jax.model.decoder import forward, init_params
from llm_jax.tokenization.compact import compact
from llm_jax.tokenization.from_huggingface import FileTokenizer
from llm_jax.tokenization.plain import ByteTokenizer, CharacterTokenizer
from llm_jax.tokenization.protocol import Tokenizer
from llm_jax.tokenization.train_bpe import train_bpe
from tests.support.sampling import PLAIN, plain_but
from tests.tokenization.test_file_tokenizer import byte_fallback, byte_level, unigram

GREEDY = SamplingConfig(temperature=0)
HOT = plain_but(temperature=3.0, top_k=100)
SPEECH = "abcabc abd ddd bcd bcd cab 12 121 2 aé éa ab/cd\n" * 3
# A language of so few texts that all can be listed: letters of ALPHABET, at most LONGEST of them.
ALPHABET, LONGEST = "abcé1/", 4
PATTERNS = [r"(ab|ac)c{1,2}", r"a*b?", r"(é|1)+/?", r"[a-c]{2}(1|11)", r"c|ca|cab", r"a/b"]

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 6},
        "kind": {"enum": ["cat", "dog", "catalogue"]},
        "age": {"type": "integer", "minimum": 3, "maximum": 120},
        "tame": {"type": "boolean"},
        "toys": {"type": "array", "items": {"enum": [1, 22]}, "minItems": 1, "maxItems": 3},
        "more": {"type": "null"},
    },
    "required": ["name", "kind", "age", "tame", "toys"],
    "additionalProperties": False,
}


def tokenizers() -> dict[str, Tokenizer]:
    bpe = train_bpe(SPEECH, 270)
    return {
        "bytes": ByteTokenizer(),
        "characters": CharacterTokenizer(SPEECH),
        "bpe": bpe,
        "compact": compact(bpe, bpe.encode(SPEECH), 2, "spell"),
        "byte level file": FileTokenizer(byte_level()),
        "byte fallback file": FileTokenizer(byte_fallback()),
        "unigram file": FileTokenizer(unigram()),
    }


TOKENIZERS = tokenizers()


def language(pattern: str) -> set[bytes]:
    texts = (
        "".join(letters)
        for size in range(LONGEST + 1)
        for letters in itertools.product(ALPHABET, repeat=size)
    )
    return {text.encode() for text in texts if re.fullmatch(pattern, text)}


def allowed_by_listing(texts: set[bytes], prefix: bytes, tokenizer: Tokenizer) -> np.ndarray:
    beginnings = {text[:size] for text in texts for size in range(len(text) + 1)}
    pieces = [tokenizer.token_bytes(token) for token in range(tokenizer.vocab_size)]
    return np.array([bool(piece) and prefix + piece in beginnings for piece in pieces])


def masks(tokenizer: Tokenizer, constraint: Constraint, more_ids: int = 0, **options: Any) -> GrammarMasks:
    return GrammarMasks(Vocabulary(tokenizer, tokenizer.vocab_size + more_ids), constraint, **options)


@pytest.mark.parametrize("name", TOKENIZERS)
@pytest.mark.parametrize("pattern", PATTERNS)
def test_allowed_are_the_tokens_that_begin_a_text_of_the_language(name: str, pattern: str) -> None:
    tokenizer, rng = TOKENIZERS[name], np.random.default_rng(0)
    # Texts that could go on beyond the list are not asked about.
    texts = language(pattern)
    for _ in range(8):
        end = tokenizer.vocab_size
        source, prefix = masks(tokenizer, Constraint(regex=pattern), more_ids=3, end_tokens=[end]), b""
        while not source.finished:
            allowed_V = source.allowed()
            assert not allowed_V[end + 1 :].any()
            listed_V = allowed_by_listing(texts, prefix, tokenizer)
            pieces = map(tokenizer.token_bytes, range(tokenizer.vocab_size))
            short_V = np.array([_letters(prefix + piece) <= LONGEST for piece in pieces])
            assert (allowed_V[:end] & short_V).tolist() == listed_V.tolist()
            assert allowed_V[end] == (prefix in texts)
            if not listed_V.any():
                break
            token = int(rng.choice(np.flatnonzero(listed_V)))
            source.take(token)
            prefix += tokenizer.token_bytes(token)
        assert not source.finished or prefix in texts


def _letters(text: bytes) -> int:
    return sum(byte & 0xC0 != 0x80 for byte in text)


def test_an_end_token_is_allowed_where_the_text_is_complete_and_ends_it() -> None:
    source = masks(ByteTokenizer(), Constraint(regex="ab*"), more_ids=2, end_tokens=[256])
    assert np.flatnonzero(source.allowed()).tolist() == [ord("a")]
    source.take(ord("a"))
    assert np.flatnonzero(source.allowed()).tolist() == [ord("b"), 256]
    assert not source.finished
    source.take(256)
    assert source.finished


def test_json_is_allowed_byte_by_byte_as_it_is_usually_written() -> None:
    source = masks(ByteTokenizer(), Constraint(json_schema=json.dumps(SCHEMA)))
    value = {"name": 'Ré \n"', "kind": "cat", "age": 120, "tame": True, "toys": [1, 22, 1]}
    text = json.dumps(value, ensure_ascii=False).encode()
    for at, byte in enumerate(text):
        assert source.allowed()[byte], text[: at + 1]
        assert not source.finished
        source.take(byte)
    assert source.finished


BAD_CONSTRAINTS = [
    {"regex": "(a"},
    {"regex": "(?=a)b"},
    {"json_schema": "{"},
    {"json_schema": "[]"},
    {"json_schema": '{"type": "objekt"}'},
    {"json_schema": '{"type": "string", "minLength": 3, "maxLength": 2}'},
    {"json_schema": '{"type": "array", "items": {"$ref": "#/nowhere"}}'},
    {},
    {"regex": "a", "json_schema": "{}"},
]


@pytest.mark.parametrize("wanted", BAD_CONSTRAINTS)
def test_constraints_that_cannot_be_followed_are_refused_in_a_line(wanted: dict[str, str]) -> None:
    with pytest.raises(UserError, match=r"constraint|regex|json_schema") as error:
        masks(ByteTokenizer(), Constraint(**wanted))
    assert len(str(error.value)) < 400


def test_the_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "llguidance", None)
    with pytest.raises(UserError, match="pip install"):
        Vocabulary(ByteTokenizer(), 256)


@pytest.fixture(scope="module")
def config(tiny: ModelConfig) -> ModelConfig:
    return dataclasses.replace(tiny, vocab_size=256, context_length=256, num_layers=1)


@pytest.fixture(scope="module")
def vocabulary() -> Vocabulary:
    return Vocabulary(ByteTokenizer(), 256)


@pytest.fixture(scope="module")
def write(config: ModelConfig, vocabulary: Vocabulary) -> Any:
    every_model = {
        seed: decoding_layout(init_params(jax.random.key(seed), config), config) for seed in range(2)
    }

    def texts(
        constraint: Constraint, model: int = 0, rows: int = 1, count: int = 200, **options: Any
    ) -> list[str]:
        prompts = [b"abc", b"Write: "]
        tokens = constrained_tokens(
            every_model[model],
            [list(prompts[row % 2]) for row in range(rows)],
            [GrammarMasks(vocabulary, constraint) for _ in range(rows)],
            Generation(max_new_tokens=count, **options),
        )
        drawn_BN = np.stack([drawn.tokens for drawn in tokens], axis=1)
        return [bytes(row[row >= 0].tolist()).decode() for row in drawn_BN]

    texts.layout = every_model[0]  # type: ignore[attr-defined]
    return texts


@pytest.mark.parametrize("sampling", [PLAIN, HOT, GREEDY], ids=["plain", "hot", "greedy"])
def test_whatever_a_random_model_writes_is_json_of_the_schema(write: Any, sampling: SamplingConfig) -> None:
    constraint, kinds = Constraint(json_schema=json.dumps(SCHEMA)), SCHEMA["properties"]["kind"]["enum"]
    values = []
    for model, seed in itertools.product((0, 1), (0, 1, 2)):
        values += map(json.loads, write(constraint, model, rows=4, seed=seed, sampling=sampling))
    for value in values:
        assert {*value} - {"more"} == {*SCHEMA["required"]}
        assert isinstance(value["name"], str)
        assert len(value["name"]) <= 6
        assert value["kind"] in kinds
        assert type(value["age"]) is int
        assert 3 <= value["age"] <= 120
        assert value["tame"] in (True, False)
        assert 1 <= len(value["toys"]) <= 3
        assert {*value["toys"]} <= {1, 22}
        assert value.get("more") is None
    if sampling.temperature:
        # Rows with different prompts share keys, so a few may be alike.
        assert len({json.dumps(value) for value in values}) > len(values) // 2


@pytest.mark.parametrize(
    "pattern", [r"(yes|no), [a-f]{2,5}\.", r"\d{4}-\d\d-\d\d", r"[é漢]{3}", r"(?:0|[1-9]\d?){4}x"]
)
def test_whatever_a_random_model_writes_matches_the_regular_expression(write: Any, pattern: str) -> None:
    for model, seed, sampling in itertools.product((0, 1), (0, 1), (PLAIN, HOT)):
        for text in write(Constraint(regex=pattern), model, rows=4, seed=seed, sampling=sampling):
            assert re.fullmatch(pattern, text)


def test_greedy_is_the_likeliest_allowed_token_at_every_step(write: Any, config: ModelConfig) -> None:
    for pattern in PATTERNS[:1] + PATTERNS[3:]:
        texts, tokens = language(pattern), list(b"abc")
        while (allowed_V := allowed_by_listing(texts, bytes(tokens[3:]), ByteTokenizer())).any():
            scores = jax.jit(forward, static_argnums=1)(
                write.layout.params, config, np.array([tokens], np.int32)
            )[0]
            tokens.append(int(np.where(allowed_V, scores[0, -1], -np.inf).argmax()))
        wanted = bytes(tokens[3:]).decode()
        constraint = Constraint(regex=pattern)
        for sampling in (GREEDY, plain_but(top_k=1), plain_but(top_p=1e-9)):
            assert write(constraint, sampling=sampling) == [wanted]


def test_rows_of_different_lengths_are_each_as_alone(write: Any) -> None:
    pattern = Constraint(regex=r"[a-c]{1,3}(d|[e-z]{9})\.")
    first, second = write(pattern, rows=2, sampling=GREEDY)
    assert first == write(pattern, sampling=GREEDY)[0]
    assert re.fullmatch(pattern.regex, second)


def test_text_that_is_cut_short_is_given_and_said_to_be_so(config: ModelConfig, write: Any) -> None:
    assert write(Constraint(regex="a{5}"), count=5) == ["aaaaa"]
    assert write(Constraint(regex="a{5}"), count=4) == ["aaaa"]
    assert write(Constraint(regex="a+"), count=4) == ["aaaa"]  # complete, though it could go on
    model = LanguageModel(config, init_params(jax.random.key(0), config), ByteTokenizer(), {})
    options = {"sampling": GREEDY, "seed": 0, "constraint": Constraint(regex="a{5}")}
    for count, reason in ((4, "length"), (5, "stop")):
        (found,) = model.generate_many(["abc"], max_new_tokens=count, **options)
        assert (found.text, found.finish_reason) == ("a" * count, reason)
        assert model.generate("abc", max_new_tokens=count, **options) == "a" * count
    with pytest.raises(UserError, match="context_length"):
        write(Constraint(regex="a"), count=254)


def test_a_vocabulary_that_cannot_spell_the_text_is_said_so(config: ModelConfig, write: Any) -> None:
    class Letters(ByteTokenizer):
        vocab_size = ord("b")  # all bytes below: no b

    source = GrammarMasks(Vocabulary(Letters(), 256), Constraint(regex="ab"))
    request = Generation(max_new_tokens=5, sampling=GREEDY)
    tokens = constrained_tokens(write.layout, [[1]], [source], request)
    assert next(tokens).tokens.tolist() == [ord("a")]
    with pytest.raises(UserError, match="no token of this vocabulary"):
        next(tokens)


def test_constraints_compile_once_per_bucket_whatever_the_lengths(write: Any) -> None:
    write(Constraint(regex="a{3}"), count=10)
    compiled = (constrained.next_logits, constrained.draw_allowed)
    before = [program._cache_size() for program in compiled]
    write(Constraint(regex="(b|c){7}"), count=14)
    assert [program._cache_size() for program in compiled] == before


def test_a_model_may_end_a_text_that_the_pattern_would_let_go_on(config: ModelConfig, write: Any) -> None:
    chat = {"template": None, "bos": None, "eos": None, "eos_ids": [0]}
    model = LanguageModel(config, init_params(jax.random.key(0), config), ByteTokenizer(), {"chat": chat})
    found = model.generate_many(
        ["abc"] * 8,
        max_new_tokens=100,
        sampling=plain_but(temperature=5.0),
        seed=0,
        constraint=Constraint(regex="a+"),
    )
    assert {one.finish_reason for one in found} == {"stop"}
    assert all(re.fullmatch("a+", one.text) for one in found)
    assert len({one.text for one in found}) > 1
