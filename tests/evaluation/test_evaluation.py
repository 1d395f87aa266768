"""Scores and baselines against their definitions, and against figures known from elsewhere."""

import json
import math
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from llm_jax.base.batch import Prompted, Rows
from llm_jax.data.windows import Windowing, scoring_batch, scoring_rows
from llm_jax.evaluation.baselines import beaten, cached_baselines, ngram_baselines, why_not_beaten
from llm_jax.evaluation.metrics import summarise
from llm_jax.evaluation.scoring import scores_of_texts
from llm_jax.tokenization.byte_pair import named_tokenizer
from tests.support.shared_data import SharedData


def test_a_score_is_the_mean_over_targets() -> None:
    score = summarise(np.array([1.0, 2.0, 6.0]), num_bytes=10)
    assert score.loss == 3
    assert score.perplexity == pytest.approx(math.exp(3))
    assert score.standard_error == pytest.approx(np.std([1, 2, 6], ddof=1) / math.sqrt(3))
    assert score.bits_per_byte == pytest.approx(9 / math.log(2) / 10)
    assert score.tokens == 3


LEVELS = {"uniform": 9.0, "unigram": 7.0, "bigram": 5.0, "trigram": 6.0}


def test_which_baselines_are_beaten_and_which_are_not_is_said() -> None:
    assert beaten(5.5, LEVELS) == "beats uniform, unigram and trigram, not bigram"
    assert beaten(5.0, LEVELS) == "beats uniform, unigram and trigram, not bigram"
    assert beaten(6.5, LEVELS) == "beats uniform and unigram, not bigram and trigram"
    assert beaten(4.9, LEVELS) == "beats every baseline"
    assert beaten(9.5, LEVELS) == "beats no baseline"


def test_why_a_model_is_not_below_them_is_one_sentence() -> None:
    assert why_not_beaten(4.9, LEVELS, 3_000, 12) == ""
    few = why_not_beaten(5.5, LEVELS, 3_000, 12)
    assert few.startswith("not below the bigram baseline (5.500 nats against 5.000): 3,000 training tokens")
    assert "1.5 times only; more steps" in why_not_beaten(5.5, LEVELS, 30_000, 1.5)
    assert "more dropout" in why_not_beaten(5.5, LEVELS, 30_000, 200)


def of_targets(tokens: np.ndarray, start: tuple[int, ...], **options: int) -> np.ndarray:
    """The targets of a text in the order in which their scores are put together."""

    def targets(rows: Rows) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        batch = scoring_batch(texts, rows, start)
        return -batch.targets, batch.targets > 0, batch.weights > 0

    texts = [Prompted(tokens, 0 if start else 1)]
    rows = scoring_rows(texts, Windowing(16, start_ids=start, **options))
    ((_, found),) = scores_of_texts(targets, rows)
    return found.log_probs


@pytest.mark.parametrize("start", [(), (7,), (7, 8, 9)])
@pytest.mark.parametrize("stride", [3, 14, 16])
@pytest.mark.parametrize("batch_tokens", [1, 40, 1000])
def test_nats_come_in_the_order_of_the_text_whatever_the_windows(
    start: tuple[int, ...], stride: int, batch_tokens: int
) -> None:
    tokens = np.arange(100, 201)
    wanted = tokens if start else tokens[1:]
    np.testing.assert_array_equal(of_targets(tokens, start, stride=stride, batch_tokens=batch_tokens), wanted)


def witten_bell_by_definition(train: list[int], validation: list[int], vocab_size: int, order: int) -> float:
    def probability(history: tuple, word: int) -> float:
        shorter = probability(history[1:], word) if history else 1 / vocab_size
        grams = [tuple(train[i : i + len(history) + 1]) for i in range(len(train) - len(history))]
        following = Counter(gram[-1] for gram in grams if gram[:-1] == history)
        total, kinds = sum(following.values()), len(following)
        return (following[word] + kinds * shorter) / (total + kinds) if total else shorter

    nats = 0.0
    for at in range(1, len(validation)):
        nats -= math.log(probability(tuple(validation[max(0, at - order + 1) : at]), validation[at]))
    return nats / (len(validation) - 1)


def test_baselines_equal_the_definition_of_witten_bell() -> None:
    rng = np.random.default_rng(0)
    train, validation = rng.integers(0, 6, 60), rng.integers(0, 8, 25)
    baselines = ngram_baselines(train, validation, 8)
    assert baselines["uniform"] == pytest.approx(math.log(8))
    for order, name in ((1, "unigram"), (2, "bigram")):
        wanted = witten_bell_by_definition(train.tolist(), validation.tolist(), 8, order)
        assert baselines[name] == pytest.approx(wanted, rel=1e-12)
    # At the first target a trigram has one token of context: the definition backs off to the bigram.
    assert baselines["trigram"] == pytest.approx(
        witten_bell_by_definition(train.tolist(), validation.tolist(), 8, 3), rel=1e-12
    )


def test_baselines_of_characters_are_the_known_ones(shared_data: SharedData) -> None:
    text = (shared_data / "tinyshakespeare.txt").read_text()
    characters = np.unique(np.frombuffer(text.encode(), np.uint8), return_inverse=True)[1]
    cut = int(0.9 * len(characters))
    baselines = ngram_baselines(characters[:cut], characters[cut:], 65)
    known = {"unigram": 3.347, "bigram": 2.486, "trigram": 2.049}
    assert {name: round(baselines[name], 3) for name in known} == known


def test_baselines_of_the_tutorials_tokens_are_the_known_ones(shared_data: SharedData) -> None:
    ids = named_tokenizer("cl100k_base").encode((shared_data / "sales_textbook.txt").read_text())
    baselines = ngram_baselines(ids[:70127], ids[70127:], 100070)
    for name, wanted in {"unigram": 6.564, "bigram": 4.779, "trigram": 4.558}.items():
        assert baselines[name] == pytest.approx(wanted, abs=0.002)


def test_baselines_are_counted_once_and_anew_for_other_text(tmp_path: Path) -> None:
    train, validation, path = np.arange(30) % 7, np.arange(9) % 7, tmp_path / "baselines.json"
    baselines = cached_baselines(path, train, validation, 7)
    assert baselines == ngram_baselines(train, validation, 7)
    kept = json.loads(path.read_text())
    kept["nats_per_token"]["unigram"] = 42.0
    path.write_text(json.dumps(kept))
    assert cached_baselines(path, train, validation, 7)["unigram"] == 42.0
    assert cached_baselines(path, train, validation, 9)["unigram"] != 42.0
    for junk in ("", "[]", '{"of": 3}', "{"):
        path.write_text(junk)
        assert cached_baselines(path, train, validation, 7) == baselines
    assert cached_baselines(tmp_path / "absent" / "baselines.json", train, validation, 7) == baselines
