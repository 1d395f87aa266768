"""The X-ray: its numbers against the model's own, and its page against hostile tokens."""

import base64
from typing import Any

import jax
import numpy as np
import pytest

from llm_jax.base.batch import Prompted
from llm_jax.base.tree import Tree
from llm_jax.config.model import ModelConfig
from llm_jax.data.windows import Windowing
from llm_jax.display.tokens import token_text
from llm_jax.display.words import read_words
from llm_jax.language_model.scoring import score_tokens
from llm_jax.model.decoder import forward, read_out
from llm_jax.walkthrough.xray import (
    Attention,
    XRay,
    logit_lens,
    make_xray,
    mark_spans,
    pack_weights,
    token_rank,
    token_surprisal,
    top_tokens,
)

WORDS = read_words("walkthrough", "en")["xray"]


def look(params: Tree, config: ModelConfig, text: np.ndarray, **words: Any) -> tuple[XRay, np.ndarray]:
    """The X-ray, and the model's own logits [T, V]."""
    scores, _, seen = jax.device_get(jax.jit(forward, static_argnums=1)(params, config, text[None, :-1]))
    read = jax.jit(read_out, static_argnums=1)
    picture = make_xray(
        text,
        scores[0],
        np.concatenate([seen.blocks.block_input[:1, 0], seen.blocks.block_output[:, 0]]),
        seen.blocks.weights[:, 0],
        read_out=lambda x_TD: np.asarray(read(params, config, x_TD)),
        shared_ids=config.shared_ids,
        **{"token_bytes": lambda token: f"{token} ".encode()} | words,
    )
    return picture, scores[0]


def softmax(logits_TV: np.ndarray) -> np.ndarray:
    return np.asarray(jax.nn.softmax(logits_TV.astype(np.float32), axis=-1))


def test_surprisal_is_minus_the_logarithm_of_softmax_however_large_the_logits() -> None:
    logits_TV = np.random.default_rng(0).normal(scale=5, size=(7, 50)).astype(np.float32)
    targets_T = np.arange(7) * 7
    expected = -np.log(softmax(logits_TV)[np.arange(7), targets_T])
    np.testing.assert_allclose(token_surprisal(logits_TV, targets_T), expected, rtol=1e-5)
    np.testing.assert_allclose(token_surprisal(logits_TV + 1000, targets_T), expected, rtol=1e-3)


def test_mean_surprisal_is_the_loss_that_evaluation_gives(
    params: Tree, config: ModelConfig, text: np.ndarray
) -> None:
    picture, _ = look(params, config, text)
    ((_, scores),) = score_tokens(
        params, config, [Prompted(text, 1)], Windowing(config.context_length, config.context_length)
    )
    assert picture.mean_nats == pytest.approx(-scores.log_probs.mean(), rel=1e-6)
    assert picture.mean_nats == pytest.approx(np.mean([token.nats for token in picture.tokens[1:]]), abs=1e-6)
    assert picture.tokens[0].nats is None


def test_rank_and_guesses_are_those_of_sorted_probabilities() -> None:
    logits_TV = np.random.default_rng(1).normal(size=(6, 30))
    order = np.argsort(-logits_TV, axis=-1)
    ids_TK, probability_TK = top_tokens(logits_TV, 3)
    np.testing.assert_array_equal(ids_TK, order[:, :3])
    np.testing.assert_allclose(probability_TK, -np.sort(-softmax(logits_TV))[:, :3], rtol=1e-5)
    for place in (0, 4, 29):
        assert token_rank(logits_TV, order[:, place]).tolist() == [place + 1] * 6


def test_ids_that_share_a_row_are_one_guess_without_a_name() -> None:
    logits_TV = np.array([[0.0, 1.0, 3.0, 3.0, 3.0]])
    assert top_tokens(logits_TV, 3, shared_ids=3)[0].tolist() == [[2, 1, 0]]
    assert top_tokens(logits_TV, 3)[0].tolist() == [[2, 3, 4]]
    picture = make_xray(
        np.array([0, 1]),
        logits_TV,
        np.zeros((1, 1, 1)),
        np.ones((1, 1, 1, 1)),
        read_out=lambda _: logits_TV,
        token_bytes=lambda token: b"%d" % token,
        shared_ids=3,
    )
    assert [guess.label for guess in picture.tokens[1].guesses] == [None, "1", "0"]
    assert picture.lens[0][0].guess.label is None


def test_the_last_row_of_the_lens_is_what_the_model_says(
    params: Tree, config: ModelConfig, text: np.ndarray
) -> None:
    _, _, seen = jax.device_get(forward(params, config, text[None, :-1]))
    read = jax.jit(read_out, static_argnums=1)
    lens = logit_lens(
        seen.blocks.block_output[:, 0], lambda x_TD: np.asarray(read(params, config, x_TD)), text[1:], 0
    )
    picture, scores_TV = look(params, config, text)
    np.testing.assert_array_equal(lens.top[-1], scores_TV.argmax(-1))
    np.testing.assert_allclose(lens.top_probability[-1], softmax(scores_TV).max(-1), rtol=1e-5)
    np.testing.assert_allclose(
        lens.true_probability[-1], np.exp(-token_surprisal(scores_TV, text[1:])), rtol=1e-5
    )
    assert len(picture.lens) == config.num_layers + 1
    assert [cell.right for cell in picture.lens[-1]] == (scores_TV.argmax(-1) == text[1:]).tolist()
    for cell, token in zip(picture.lens[-1], picture.tokens[1:], strict=True):
        assert cell.guess.label == token.guesses[0].label
        assert cell.true_probability == pytest.approx(token.probability, abs=2e-6)


def unpack(attention: Attention) -> np.ndarray:
    flat = np.frombuffer(base64.b64decode(attention.weights), np.uint8)
    return flat.reshape(attention.layers, attention.heads, attention.length, attention.length)


@pytest.mark.parametrize("sharpness", [0, 0.01, 1, 30])
def test_packed_attention_is_within_one_step_and_its_rows_sum_to_one(sharpness: float) -> None:
    scores = np.random.default_rng(5).normal(scale=sharpness, size=(2, 3, 128, 128))
    mask = np.tril(np.ones((128, 128), bool))
    weights = np.asarray(jax.nn.softmax(np.where(mask, scores, -np.inf), axis=-1))
    packed = unpack(pack_weights(weights))
    assert np.abs(packed / 255 - weights).max() < 1 / 255 + 1e-6
    np.testing.assert_array_equal(packed.sum(-1, dtype=int), 255)
    assert np.all(packed[:, :, ~mask] == 0)


def test_the_pages_attention_is_the_models(params: Tree, config: ModelConfig, text: np.ndarray) -> None:
    picture, _ = look(params, config, text)
    _, _, seen = jax.device_get(forward(params, config, text[None, :-1]))
    assert np.abs(unpack(picture.attention) / 255 - seen.blocks.weights[:, 0]).max() < 1 / 255


@pytest.mark.parametrize(
    ("piece", "shown"),
    [
        (b" the", " the"),
        (b".\n\n", ".↵↵"),
        (b"\t\r", "⇥\\x0d"),
        ("é".encode()[:1], "\\xc3"),
        ("你".encode()[1:] + b"a", "\\xbd\\xa0a"),
        ("你好".encode(), "你好"),
        ("\u202e".encode(), "\\xe2\\x80\\xae"),
        (b"\x00", "\\x00"),
        (b"", "∅"),
    ],
)
def test_all_of_a_token_can_be_seen(piece: bytes, shown: str) -> None:
    assert token_text(piece) == shown


def test_a_token_has_its_longest_passage() -> None:
    marked = mark_spans("abcdefg", [(0, 2), (1, 3), (5, 1)])
    assert [token.text for token in marked] == list("abcdefg")
    assert [token.span for token in marked] == [2, 3, 3, 3, 0, 1, 0]
    assert [token.ends for token in marked] == [True, False, False, True, False, True, False]
    assert [token.ends for token in mark_spans("abcd", [(0, 2), (2, 2)])] == [False, True, False, True]
