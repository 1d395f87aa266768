"""Given texts scored: laws of log-probabilities, whatever the windows, prompts and batches."""

import dataclasses
import math
import sys

import jax
import numpy as np
import pytest

from llm_jax.base.batch import Batch, Prompted
from llm_jax.base.errors import DataError, UserError
from llm_jax.cli import command
from llm_jax.config.decoding import SamplingConfig
from llm_jax.config.load import to_dict
from llm_jax.config.model import ModelConfig
from llm_jax.config.run import Config, TrainConfig
from llm_jax.data.windows import Windowing, scoring_batch, scoring_rows
from llm_jax.evaluation.metrics import summarise
from llm_jax.harness import harness
from llm_jax.inference.decode import generate_tokens
from llm_jax.inference.request import Generation
from llm_jax.language_model.model import LanguageModel
from llm_jax.language_model.scoring import encode_pair, score_tokens
from llm_jax.model.decoder import forward, init_params
from llm_jax.tokenization.plain import ByteTokenizer
from llm_jax.training.losses import score_targets, token_nats

CONTEXT = 24
LONG = "A good salesperson listens more than she talks, and asks before she answers."
TEXTS = [
    ("", "ab"),
    ("", "listening"),
    ("Ask,", " then wait."),
    ("", LONG),
    ("The customer is", " always right"),
    (LONG, "!"),
    (LONG, LONG),
    ("", "Yes, of course."),
]


def model_with(tiny: ModelConfig, stride: int = 0) -> LanguageModel:
    config = dataclasses.replace(tiny, vocab_size=256, context_length=CONTEXT, spare_embedding_rows=0)
    about = {"config": to_dict(Config(model=config, train=TrainConfig(eval_stride=stride)))}
    return LanguageModel(config, init_params(jax.random.key(1), config), ByteTokenizer(), about)


@pytest.fixture(scope="module")
def model(tiny: ModelConfig) -> LanguageModel:
    return model_with(tiny)


def batch_of(tokens: np.ndarray, targets: np.ndarray) -> Batch:
    return Batch(tokens, targets, np.ones(tokens.shape, np.float32))


def by_logits(model: LanguageModel, ids: np.ndarray) -> np.ndarray:
    """Log-probabilities of all tokens but the first by the definition, for a text that fits."""
    scores = jax.nn.log_softmax(model.logits(ids[:-1]))
    return np.asarray(scores)[np.arange(len(ids) - 1), ids[1:]]


def test_log_probabilities_are_those_of_the_logits(model: LanguageModel) -> None:
    ids = model.tokenizer.encode("listening to all")
    found = model.score("listening to all")
    np.testing.assert_allclose(found.log_probs, by_logits(model, ids), rtol=1e-5)
    assert found.tokens.tolist() == ids[1:].tolist()
    assert found.greedy.tolist() == (model.logits(ids[:-1]).argmax(axis=-1) == ids[1:]).tolist()


def test_sums_are_those_of_evaluation(model: LanguageModel) -> None:
    found = model.score(LONG)
    score = summarise(-found.log_probs, len(LONG) - 1)
    assert found.total == pytest.approx(-score.loss * score.tokens)
    assert (found.bytes, found.perplexity) == (score.bytes, score.perplexity)
    assert (
        found.bits_per_byte
        == pytest.approx(score.bits_per_byte)
        == pytest.approx(-found.total / math.log(2) / (len(LONG) - 1))
    )


def test_a_text_is_worth_its_beginning_and_what_follows_it(model: LanguageModel) -> None:
    whole = model.score("then wait a little")
    parts = model.score("then"), model.score(" wait a little", prompt="then")
    assert whole.total == pytest.approx(sum(part.total for part in parts), rel=1e-5)
    assert whole.tokens.tolist() == np.concatenate([part.tokens for part in parts]).tolist()


def test_texts_of_all_lengths_together_score_as_each_alone(model: LanguageModel) -> None:
    together = model.score_all(TEXTS)
    for (prompt, text), found in zip(TEXTS, together, strict=True):
        alone = model.score(text, prompt=prompt)
        np.testing.assert_allclose(found.log_probs, alone.log_probs, rtol=1e-4, atol=1e-5)
        assert found.tokens.tolist() == alone.tokens.tolist()
        assert found.tokens.tolist() == list(text.encode())[0 if prompt else 1 :]
        assert found.bytes == len(found.tokens)


def by_windows(model: LanguageModel, ids: np.ndarray, stride: int) -> list[float]:
    """Log-probabilities of all tokens but the first, each in the first window that has it as a target."""
    found: list[float] = []
    while len(found) < len(ids) - 1:
        begin = len(found) if stride == CONTEXT else max(0, len(found) - CONTEXT + stride)
        window = ids[begin : begin + CONTEXT + 1]
        found += by_logits(model, window)[len(found) - begin :].tolist()
    return found


@pytest.mark.parametrize("stride", [0, 5])
def test_a_text_longer_than_the_context_scores_in_windows_a_stride_apart(
    tiny: ModelConfig, stride: int
) -> None:
    model = model_with(tiny, stride)
    wanted = by_windows(model, model.tokenizer.encode(LONG), stride or CONTEXT)
    np.testing.assert_allclose(model.score(LONG).log_probs, wanted, rtol=1e-4, atol=1e-5)


def test_a_prompt_that_does_not_fit_loses_its_beginning_and_no_more(model: LanguageModel) -> None:
    text = " in the end"
    found = model.score(text, prompt=LONG)
    ids = model.tokenizer.encode(LONG + text)[-CONTEXT - 1 :]
    np.testing.assert_allclose(found.log_probs, by_logits(model, ids)[-len(text) :], rtol=1e-5)


@pytest.mark.parametrize("stride", [1, 5, 16, CONTEXT])
def test_windows_score_each_token_once_and_leave_it_what_the_stride_promises(stride: int) -> None:
    texts = [
        Prompted(1000 * number + np.arange(given + wanted), given)
        for number, (given, wanted) in enumerate(
            [(1, 1), (1, 90), (5, 3), (60, 2), (60, 90), (9, 16), (24, 1), (25, 1)]
        )
    ]
    scored: dict[int, list[int]] = {number: [] for number in range(len(texts))}
    for each in scoring_rows(texts, Windowing(CONTEXT, stride, batch_tokens=100)):
        batch, numbers = scoring_batch(texts, each), [window.text for window in each.windows]
        rows, width = batch.tokens.shape
        assert rows.bit_count() == 1
        assert width in (16, CONTEXT)
        assert not batch.weights[len(numbers) :].any()
        for row, number in enumerate(numbers):
            places = np.flatnonzero(batch.weights[row])
            text = texts[number]
            assert np.array_equal(batch.targets[row, places], batch.tokens[row, places] + 1)
            scored[number] += batch.targets[row, places].tolist()
            before = places[0] + 1  # tokens before the window's first target
            assert before >= min(CONTEXT - stride + 1, batch.targets[row, places[0]] - 1000 * number)
            assert batch.tokens[row, 0] >= text.tokens[0]
    assert [scored[number] for number in scored] == [text.tokens[text.given :].tolist() for text in texts]


def test_a_greedy_continuation_is_known_as_one(model: LanguageModel) -> None:
    prompt = model.tokenizer.encode("The").tolist()
    request = Generation(max_new_tokens=12, sampling=SamplingConfig(temperature=0))
    rows = generate_tokens(model.layout, [prompt], request)
    ids = np.array(prompt + [int(row[0]) for row in rows])
    other = ids.copy()
    other[8] = (other[8] + 1) % 256
    texts = [Prompted(ids, 3), Prompted(other, 3)]
    scores = dict(score_tokens(model.params, model.config, texts, Windowing(CONTEXT, CONTEXT)))
    assert scores[0].greedy.all()
    assert not scores[1].greedy[5]
    assert scores[1].greedy[:5].all()


def test_ids_that_share_a_row_score_as_in_the_loss_and_the_first_of_them_is_chosen(tiny: ModelConfig) -> None:
    shared = dataclasses.replace(tiny, shared_ids=9, spare_embedding_rows=0)
    params = init_params(jax.random.key(3), shared)
    tokens = np.arange(37, dtype=np.int32)[None, :12]
    logits = np.asarray(jax.jit(forward, static_argnums=1)(params, shared, tokens)[0])
    batch = batch_of(tokens, np.broadcast_to(np.arange(25, 37, dtype=np.int32), (1, 12)))
    nats, greedy = score_targets(params, shared, batch)
    np.testing.assert_allclose(nats, token_nats(params, shared, batch), rtol=1e-5)
    assert greedy.tolist() == (logits.argmax(axis=-1) == batch.targets).tolist()
    chosen = batch_of(tokens, logits.argmax(axis=-1).astype(np.int32))
    assert np.asarray(score_targets(params, shared, chosen).greedy).all()


def test_one_program_serves_all_lengths_of_a_bucket(tiny: ModelConfig) -> None:
    model = model_with(dataclasses.replace(tiny, num_layers=1))
    model.score_all([("", "x" * 20)])
    before = score_targets._cache_size()
    model.score_all([("", "y" * 19)])
    model.score("z", prompt="w" * 22)
    model.score("in the end", prompt=LONG)
    assert score_targets._cache_size() == before
    model.score_all([("", "x" * 20)] * 3)
    assert score_targets._cache_size() == before + 1
    model.score_all([("", "y" * 22)] * 4)
    assert score_targets._cache_size() == before + 1


def test_a_token_may_begin_with_the_spaces_before_it_and_the_ids_are_those_of_the_whole_text() -> None:
    given, text = "Ask  ", "now"
    pair = encode_pair(ByteTokenizer(), given, text)
    assert (bytes(pair.tokens.tolist()), pair.given) == (b"Ask  now", 3)
    alone = encode_pair(ByteTokenizer(), "  ", "now")
    assert (bytes(alone.tokens.tolist()), alone.given) == (b"  now", 1)


def test_what_cannot_be_scored_is_refused(model: LanguageModel) -> None:
    with pytest.raises(UserError, match="must not be empty"):
        model.score("")
    with pytest.raises(UserError, match="must not be empty"):
        model.score_all([("", "fine"), ("prompt", "")])
    with pytest.raises(DataError, match="at least one of its own; got 1 before, and 0"):
        model.score("x")
    small = dataclasses.replace(model.config, vocab_size=100)
    with pytest.raises(DataError, match="token id 108"):
        dataclasses.replace(model, config=small).score("a long text, and then a z" * 3)


def refusal(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as stop:
        command.run(harness, words)
    assert stop.value.code == 2
    return capsys.readouterr().err


def test_without_the_harness_its_command_says_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    monkeypatch.delitem(sys.modules, "llm_jax.language_model.harness_model", raising=False)
    message = refusal(["runs/none", "--tasks", "piqa"], capsys)
    assert 'pip install "llm-jax[lm-eval]"' in message
    assert message.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--tasks", " , "], "tasks must name at least one"),
        (["--tasks", "piqa", "--num_fewshot", "-1"], "num_fewshot (-1) must be at least 0"),
        (["--tasks", "piqa", "--limit", "0"], "limit (0) must be at least 1"),
        (["--tasks", "piqa", "--batch_tokens", "0"], "batch_tokens (0)"),
        (["--tasks", "piqa", "--include_path", "nowhere"], "nowhere must be a folder"),
        (["--tasks", "piqa", "--out", "nowhere/out.json"], "the folder of nowhere/out.json must be there"),
    ],
)
def test_options_that_make_no_sense_are_refused_before_anything_is_loaded(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert said in refusal(["runs/none", *words], capsys)
