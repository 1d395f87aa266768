"""The comparison of two models on one text: laws of a paired difference, whatever the tokenizers."""

import math

import numpy as np
import pytest

from llm_jax.base.errors import DataError
from llm_jax.evaluation.compare import Scored, compare


def scored(cut: float, nats_of_byte: np.ndarray, seed: int, train_bytes: int = 0) -> Scored:
    """A model that gives each byte of a text certain nats, through a tokenizer that ends a token at a share
    of the bytes; bytes before `train_bytes` are training's, and the first token after them is context.
    """
    size = len(nats_of_byte)
    borders = np.flatnonzero(np.random.default_rng(seed).random(size) < cut) + 1
    borders = np.unique(np.append(borders[borders > train_bytes], size))
    total = np.concatenate([[0.0], np.cumsum(nats_of_byte)])
    return Scored("a book", "digest", int(borders[0]), borders[1:], np.diff(total[borders]))


def test_texts_that_a_tokenizer_changed_are_compared_with_its_own_alone() -> None:
    plain, composed = scored(0.3, NATS, 1), scored(0.3, NATS, 1)._replace(altered_by="one")
    for pair, which in (((plain, composed), "second"), ((composed, plain), "first")):
        with pytest.raises(DataError, match=f"the {which} model's tokens decode to another"):
            compare(*pair)
    assert compare(composed, composed).difference == 0
    with pytest.raises(DataError, match="cannot be compared"):
        compare(composed, composed._replace(altered_by="other"))


NATS = np.abs(np.random.default_rng(0).normal(1.5, 1, 20_000))


def test_a_model_equals_itself() -> None:
    same = compare(scored(0.3, NATS, 1), scored(0.3, NATS, 1))
    assert (same.difference, same.standard_error, same.exceeds_noise) == (0, 0, False)
    assert same.first == same.second


def test_a_constant_advantage_in_every_byte_is_found_without_noise() -> None:
    found = compare(scored(0.3, NATS, 1), scored(0.3, NATS - 0.25 * math.log(2), 1))
    assert found.difference == pytest.approx(-0.25, abs=1e-12)
    assert found.standard_error == pytest.approx(0, abs=1e-12)
    assert found.exceeds_noise


def test_two_tokenizers_of_the_same_losses_differ_by_nothing_and_lose_no_nat() -> None:
    one, two = scored(0.3, NATS, 1), scored(0.2, NATS, 2)
    found = compare(one, two)
    assert found.difference == pytest.approx(0, abs=1e-12)
    begin, end = 20_000 - found.bytes, 20_000
    assert found.bytes > 19_900
    assert found.first * found.bytes * math.log(2) == pytest.approx(NATS[begin:end].sum(), rel=1e-12)
    assert found.second * found.bytes * math.log(2) == pytest.approx(NATS[begin:end].sum(), rel=1e-12)


def test_the_order_decides_the_sign_alone() -> None:
    noise = np.random.default_rng(3).normal(0, 0.3, 20_000)
    one, two = scored(0.3, NATS, 1), scored(0.5, NATS + noise, 2)
    forth, back = compare(one, two), compare(two, one)
    assert forth.difference == -back.difference
    assert forth.standard_error == pytest.approx(back.standard_error, rel=1e-12)
    assert (forth.first, forth.second) == (back.second, back.first)


def test_only_bytes_that_both_held_out_count() -> None:
    wrong = NATS + np.where(np.arange(20_000) < 12_000, 100.0, 0.1)
    found = compare(scored(0.3, NATS, 1, train_bytes=12_000), scored(0.3, wrong, 2, train_bytes=4_000))
    assert 7_900 < found.bytes <= 8_000
    assert found.difference == pytest.approx(0.1 / math.log(2), rel=1e-9)


def test_the_standard_error_of_equal_blocks_is_that_of_their_mean() -> None:
    every_byte = Scored("a book", "digest", 0, np.arange(1, 20_481), np.zeros(20_480))
    difference_K = np.random.default_rng(0).normal(0.1, 1, 80)
    other = every_byte._replace(nats_N=np.repeat(difference_K * math.log(2), 256))
    found = compare(every_byte, other)
    assert found.blocks == 80
    assert found.difference == pytest.approx(difference_K.mean())
    assert found.standard_error == pytest.approx(difference_K.std(ddof=1) / math.sqrt(80))


def test_models_without_a_difference_exceed_their_noise_about_one_time_in_twenty() -> None:
    rng, one = (
        np.random.default_rng(0),
        Scored("a book", "digest", 0, np.arange(4, 40_001, 4), np.zeros(10_000)),
    )
    # Noise that lasts for 20 tokens, as losses in a text do: tokens taken as independent would fail here.
    noise = [np.convolve(rng.normal(size=10_019), np.ones(20), "valid") for _ in range(300)]
    share = np.mean([compare(one, one._replace(nats_N=each)).exceeds_noise for each in noise])
    assert 0.02 < share < 0.1


def test_different_texts_are_refused_by_name() -> None:
    other = scored(0.3, NATS, 1)._replace(corpus="another book", source="other digest")
    with pytest.raises(DataError, match="a book and on another book") as refusal:
        compare(scored(0.3, NATS, 1), other)
    assert "\n" not in str(refusal.value)


def test_too_little_common_text_is_refused() -> None:
    late = scored(0.3, NATS, 1, train_bytes=19_700)
    with pytest.raises(DataError, match="two blocks of 256 bytes of a book"):
        compare(scored(0.3, NATS, 1), late)
    with pytest.raises(DataError, match="got 0 bytes"):
        compare(late, late._replace(begin=1, end_N=late.end_N + 30_000))
