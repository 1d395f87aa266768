"""The token that a tokenizer puts before every text: how files say it, and that all that reads texts does."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from tokenizers import processors

from llm_jax.base.errors import DataError
from llm_jax.config.decoding import SamplingConfig
from llm_jax.config.load import to_dict
from llm_jax.config.model import ModelConfig
from llm_jax.config.run import Config, DataConfig, TrainConfig
from llm_jax.data.batches import batch_at
from llm_jax.data.store import prepare_store
from llm_jax.evaluation.compare import compare
from llm_jax.evaluation.metrics import Score
from llm_jax.inference.decode import generate_tokens
from llm_jax.inference.request import Generation
from llm_jax.language_model.decoding import Speculation
from llm_jax.language_model.model import LanguageModel
from llm_jax.model.decoder import init_params
from llm_jax.runs.data import Materials
from llm_jax.tokenization.from_gguf import gguf_tokenizer_json
from llm_jax.tokenization.from_huggingface import FileTokenizer
from llm_jax.tokenization.plain import ByteTokenizer
from llm_jax.tokenization.start_tokens import Named, tokens_around, with_tokens_around
from llm_jax.tokenization.to_gguf import gguf_tokenizer
from llm_jax.tokenization.to_huggingface import tokenizer_json
from llm_jax.walkthrough.gather import Subject, next_batch, text_xray
from tests.tokenization.test_file_tokenizer import byte_fallback, byte_level
from tests.tokenization.test_gguf_tokenizer import gguf_metadata, sentencepiece_metadata

CONTEXT, START, END = 24, 256, 257
GREEDY = SamplingConfig(temperature=0)
LONG = "A good salesperson listens more than she talks, and asks before she answers."


def byte_content(*start: Named) -> dict[str, Any]:
    """A tokenizer.json of bytes with two special tokens, and what it puts before every text."""
    content = dict(tokenizer_json(ByteTokenizer()))
    named = [("<s>", START), ("</s>", END)]
    content["added_tokens"] = [{"id": token, "content": name, "special": True} for name, token in named]
    content["added_tokens"] = [
        token | dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
        for token in content["added_tokens"]
    ]
    return with_tokens_around(content, start)


def byte_tokenizer() -> FileTokenizer:
    return FileTokenizer(byte_content(Named("<s>", START)))


@pytest.fixture(scope="module")
def model(tiny: ModelConfig) -> LanguageModel:
    config = dataclasses.replace(
        tiny, vocab_size=258, context_length=CONTEXT, spare_embedding_rows=0, num_layers=1
    )
    params = init_params(jax.random.key(1), config)
    return LanguageModel(config, params, byte_tokenizer(), {"config": to_dict(Config(model=config))})


TEMPLATE = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=[("<s>", START), ("</s>", END)])
PROCESSORS = {
    "nothing": (None, (), ()),
    "offsets alone": (processors.ByteLevel(trim_offsets=False), (), ()),
    "a template": (TEMPLATE, (START,), (END,)),
    "a template among others": (
        processors.Sequence([processors.ByteLevel(trim_offsets=False), TEMPLATE]),
        (START,),
        (END,),
    ),
    "another kind": (processors.RobertaProcessing(("</s>", END), ("<s>", START)), (START,), (END,)),
}


@pytest.mark.parametrize("kind", PROCESSORS)
def test_the_post_processor_says_what_stands_around_every_text(kind: str) -> None:
    processor, start, end = PROCESSORS[kind]
    said = None if processor is None else json.loads(processor.__getstate__())
    content = byte_content() | {"post_processor": said}
    assert FileTokenizer(content).start_ids == start
    assert tuple(token.id for token in tokens_around(content).end) == end
    assert FileTokenizer(content).encode("ab").tolist() == [97, 98]  # the text alone
    again = with_tokens_around(content, *tokens_around(content))
    assert tokens_around(again) == tokens_around(content)


@pytest.mark.parametrize(
    "processor", [{"type": "Unheard"}, [1], with_tokens_around({}, [Named("<x>", 9999)])["post_processor"]]
)
def test_a_damaged_post_processor_is_refused(processor: Any) -> None:
    with pytest.raises(DataError, match=r"post_processor|9999"):
        FileTokenizer(byte_content() | {"post_processor": processor})


ADD, BOS = "tokenizer.ggml.add_bos_token", "tokenizer.ggml.bos_token_id"


@pytest.mark.parametrize(
    ("metadata", "said", "start"),
    [
        (sentencepiece_metadata(), {}, (1,)),  # as llama.cpp takes it for this kind
        (sentencepiece_metadata(), {BOS: 2}, (2,)),
        (sentencepiece_metadata(), {ADD: True, BOS: 2}, (2,)),
        (sentencepiece_metadata(), {ADD: False, BOS: 1}, ()),
        (gguf_metadata("smollm"), {BOS: 300}, ()),
        (gguf_metadata("qwen2"), {ADD: False, BOS: 300}, ()),
        (gguf_metadata("qwen2"), {ADD: True, BOS: 300}, (300,)),
        (gguf_metadata("llama-bpe"), {BOS: 300}, (300,)),
        (gguf_metadata("llama-bpe"), {ADD: False, BOS: 300}, ()),
    ],
)
def test_a_gguf_file_says_it_or_its_kind_does(
    metadata: dict[str, Any], said: dict[str, Any], start: tuple[int, ...]
) -> None:
    content = gguf_tokenizer_json(metadata | said)
    assert FileTokenizer(content).start_ids == start
    names = metadata["tokenizer.ggml.tokens"]
    assert [token.content for token in tokens_around(content).start] == [names[token] for token in start]


@pytest.mark.parametrize("said", [{ADD: "yes"}, {ADD: True, BOS: 10**6}, {ADD: True, BOS: -1}])
def test_a_gguf_file_with_a_damaged_start_is_refused(said: dict[str, Any]) -> None:
    with pytest.raises(DataError, match=r"tokenizer\.ggml\.\w*bos_token\w* must be"):
        gguf_tokenizer_json(gguf_metadata() | said)


@pytest.mark.parametrize("content", [byte_level(), byte_fallback()])
def test_a_gguf_file_that_is_written_says_it(content: dict[str, Any]) -> None:
    name = content["added_tokens"][1]["content"]
    token, rows = content["added_tokens"][1]["id"], 320
    with_start = with_tokens_around(content, [Named(name, token)])
    for each, start in ((with_start, (token,)), (content, ())):
        written = gguf_tokenizer(each, rows, {"bos": "<unk>"})
        assert written[ADD] is bool(start)
        assert written[BOS] == token or not start
        assert FileTokenizer(gguf_tokenizer_json(written)).start_ids == start
    with pytest.raises(DataError, match="one token before a text"):
        gguf_tokenizer(with_tokens_around(content, [Named(name, token)] * 2), rows, {})


def test_every_way_of_generating_reads_it_before_a_text_and_takes_ids_as_they_are(
    model: LanguageModel,
) -> None:
    options: dict[str, Any] = {"max_new_tokens": 8, "sampling": GREEDY, "seed": 0}
    ids = [START, *b"ask "]
    request = Generation(**options)
    (wanted,) = np.stack(list(generate_tokens(model.layout, [ids], request)), axis=1).tolist()
    (bare,) = np.stack(list(generate_tokens(model.layout, [ids[1:]], request)), axis=1).tolist()
    assert wanted != bare
    assert model.encode_prompt("ask ") == ids
    prompts = ["ask ", ids, ids[1:], "a longer one"]
    found = [one.token_ids for one in model.generate_many(prompts, **options)]
    assert found[:3] == [wanted, wanted, bare]
    text = bytes(token for token in wanted if token < START).decode(errors="replace")
    assert model.generate("ask ", **options) == "".join(model.stream("ask ", **options)) == text
    assert model.generate("ask ", **options, speculation=Speculation(2)) == text


def logits(model: LanguageModel, ids: Any) -> np.ndarray:
    """After each of the ids, [T, V]; padded to one length, so that one program serves all."""
    return model.logits(np.pad(np.asarray(ids), (0, CONTEXT - len(ids))))[: len(ids)]


def test_text_that_slides_past_the_context_keeps_it(model: LanguageModel) -> None:
    found = model.generate_many([LONG[:20], LONG, "b"], max_new_tokens=9, sampling=GREEDY, seed=0)
    for prompt, one in zip((LONG[:20], LONG, "b"), found, strict=True):
        ids = [START, *prompt.encode()]
        for token in one.token_ids:
            seen = ids if len(ids) <= CONTEXT else [START, *ids[1 - CONTEXT :]]
            assert logits(model, seen)[-1].argmax() == token
            ids.append(token)


def by_windows(model: LanguageModel, ids: np.ndarray) -> np.ndarray:
    """Log-probabilities of all tokens, in windows side by side that each begin with the start token."""
    found = []
    for begin in range(0, len(ids), CONTEXT):
        window = ids[begin : begin + CONTEXT]
        scores = jax.nn.log_softmax(logits(model, [START, *window[:-1]]))
        found.append(np.asarray(scores)[np.arange(len(window)), window])
    return np.concatenate(found)


def test_every_window_that_scores_begins_with_it_and_the_first_token_counts(model: LanguageModel) -> None:
    ids = model.tokenizer.encode(LONG)
    found = model.score(LONG)
    assert found.tokens.tolist() == ids.tolist()
    assert found.bytes == len(LONG)
    np.testing.assert_allclose(found.log_probs, by_windows(model, ids), rtol=1e-4, atol=1e-5)
    asked = model.score(" then wait", prompt="Ask,")
    np.testing.assert_allclose(
        asked.log_probs, by_windows(model, model.tokenizer.encode("Ask, then wait"))[4:], rtol=1e-4
    )
    cut = model.score(" then wait", prompt=LONG)  # what is left of the prompt follows the start, too
    kept = (LONG + " then wait").encode()[-CONTEXT:]
    np.testing.assert_allclose(cut.log_probs, by_windows(model, np.array([*kept]))[-10:], rtol=1e-4)


@pytest.fixture(scope="module")
def material(model: LanguageModel, prose: Path, tmp_path_factory: pytest.TempPathFactory) -> Materials:
    data = DataConfig(
        corpus=str(prose),
        prepared=tmp_path_factory.mktemp("prepared"),
        tokenizer="inherited",
        compact_vocab=False,
    )
    train = TrainConfig(init_from="parent", order="permutation", batch_size=2)
    config = Config(model=model.config, data=data, train=train)
    return Materials(config, prepare_store(data, print, model.tokenizer))


def test_the_validation_split_is_scored_so_and_all_of_its_bytes_count(
    model: LanguageModel, material: Materials
) -> None:
    ids = np.asarray(material.store.tokens("validation"))
    score = Score(**material.evaluate(model.params))
    assert (score.tokens, score.bytes) == (len(ids), material.store.num_bytes("validation"))
    assert score.loss == pytest.approx(-by_windows(model, ids).mean(), rel=1e-5)
    scored = material.scored(model.params)
    assert scored.begin == material.store.num_bytes("train")
    assert scored.end_N[-1] - scored.begin == score.bytes
    assert compare(scored, scored).bytes == score.bytes


@pytest.mark.parametrize("start", [(), (90,), (90, 91, 92)])
@pytest.mark.parametrize("order", ["random", "permutation"])
def test_every_row_of_training_begins_with_it_and_it_is_never_a_target(
    start: tuple[int, ...], order: str
) -> None:
    tokens = np.arange(1000, 1103)
    options: dict[str, Any] = {"context_length": 8, "batch_size": 3, "seed": 1, "order": order}
    seen: list[int] = []
    each = 8 - max(0, len(start) - 1)  # targets of a row
    for step in range((len(tokens) - 1) // each - 1):
        batch = batch_at(tokens, step=step, start_ids=start, **options)
        assert batch.tokens.shape == (3, 8)
        assert (batch.tokens[:, : len(start)] == start).all()
        assert np.array_equal(batch.tokens[:, 1:], batch.targets[:, :-1])
        targets = batch.targets[batch.weights > 0]
        assert len(targets) == 3 * each
        assert targets.min() >= 1000 + (not start)
        assert (np.diff(batch.targets[:, len(start) :]) == 1).all()
        seen += targets.tolist()
    if order == "permutation":  # three epochs, in which each is a target once, but for both ends
        counts = np.bincount(np.array(seen) - 1000)
        assert counts.max() == 3
        assert (counts[16:80] == 3).all()


def test_training_takes_such_rows_and_explain_shows_them(model: LanguageModel, material: Materials) -> None:
    batch = material.batch_at(3)
    assert (batch.tokens[:, 0] == START).all()
    state = {"params": model.params, "counters": {"batch": 3}}
    splits = (material.store.tokens(split) for split in ("train", "validation"))
    subject = Subject(material.config, state, model.tokenizer, *splits, step=None)
    np.testing.assert_array_equal(next_batch(subject).tokens, batch.tokens)
    picture = text_xray(subject, "ask")
    assert [token.text for token in picture.tokens] == ["∅", "a", "s", "k"]
    wanted = -by_windows(model, model.tokenizer.encode("ask"))
    np.testing.assert_allclose([token.nats for token in picture.tokens[1:]], wanted, atol=1e-5)


def test_a_context_without_room_for_a_text_is_refused() -> None:
    with pytest.raises(DataError, match="must exceed the 2 tokens that the tokenizer puts before"):
        batch_at(
            np.arange(9), order="random", context_length=2, batch_size=1, seed=0, step=0, start_ids=(7, 8)
        )
