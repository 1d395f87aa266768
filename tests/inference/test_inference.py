"""Laws of sampling, decoding and streamed text."""

import dataclasses
from collections import Counter
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from llm_jax.base.errors import DataError, UserError
from llm_jax.base.tree import Tree
from llm_jax.config.decoding import SamplingConfig
from llm_jax.config.model import ModelConfig
from llm_jax.inference import decode as decoding
from llm_jax.inference.decode import generate_tokens
from llm_jax.inference.request import Generation, decoding_layout
from llm_jax.inference.sampling import keep_likely, penalize, sample
from llm_jax.inference.text import Continuation, stream_text
from llm_jax.model.decoder import forward, init_params
from llm_jax.tokenization.plain import ByteTokenizer
from llm_jax.tokenization.protocol import decode
from llm_jax.tokenization.streaming import StreamDecoder
from tests.support.sampling import PLAIN, plain_but

pytestmark = pytest.mark.compiles

GREEDY = SamplingConfig(temperature=0)
run = jax.jit(forward, static_argnums=1)


def generate(params: Tree, config: ModelConfig, prompts: list, count: int, **options: Any) -> list[list[int]]:
    request = Generation(max_new_tokens=count, **({"sampling": GREEDY} | options))
    rows = generate_tokens(decoding_layout(params, config), prompts, request)
    return np.stack(list(rows), axis=1).tolist()


def greedy_by_definition(params: Tree, config: ModelConfig, prompt: list[int], count: int) -> list[int]:
    tokens = list(prompt)
    for _ in range(count):
        logits, _, _ = run(params, config, np.array([tokens[-config.context_length :]], np.int32))
        tokens.append(int(logits[0, -1].argmax()))
    return tokens[len(prompt) :]


@pytest.mark.parametrize("length", [1, 3, 4, 11, 12, 20])
def test_cached_decoding_equals_the_full_forward_also_past_the_context(
    tiny: ModelConfig, tiny_params: Tree, length: int
) -> None:
    prompt = np.random.default_rng(length).integers(0, 37, length).tolist()
    got = generate(tiny_params, tiny, [prompt], 20)
    assert got[0] == greedy_by_definition(tiny_params, tiny, prompt, 20)


def test_batched_prompts_of_different_lengths_equal_each_alone(tiny: ModelConfig, tiny_params: Tree) -> None:
    rng = np.random.default_rng(0)
    prompts = [rng.integers(0, 37, length).tolist() for length in (2, 12, 5, 15)]
    together = generate(tiny_params, tiny, prompts, 16)
    assert together == [generate(tiny_params, tiny, [prompt], 16)[0] for prompt in prompts]


def test_generation_compiles_once_per_bucket_whatever_the_lengths(
    tiny: ModelConfig, tiny_params: Tree
) -> None:
    generate(tiny_params, tiny, [[1, 2, 3]], 6)
    before = decoding.prefill._cache_size(), decoding.decode_steps._cache_size()
    generate(tiny_params, tiny, [[4, 5, 6, 7]], 8)
    generate(tiny_params, tiny, [[8, 9, 1]], 5)
    assert (decoding.prefill._cache_size(), decoding.decode_steps._cache_size()) == before


def test_parameters_that_were_put_on_a_device_compile_decoding_once(
    tiny: ModelConfig, tiny_params: Tree
) -> None:
    placed = jax.device_put(tiny_params, jax.devices()[0])  # as training and checkpoints give them
    before = decoding.decode_steps._cache_size()
    generate(placed, tiny, [[1, 2, 3]], 8)
    assert decoding.decode_steps._cache_size() == before + 1


def test_laid_out_parameters_give_the_same_scores(tiny: ModelConfig) -> None:
    tied = dataclasses.replace(tiny, tied_head=True, head_bias=False, spare_embedding_rows=0)
    params = init_params(jax.random.key(0), tied)
    tokens_BT = np.arange(6, dtype=np.int32)[None]
    layout = decoding_layout(params, tied)
    assert not layout.config.tied_head
    laid_out, _, _ = run(layout.params, layout.config, tokens_BT)
    np.testing.assert_allclose(laid_out, run(params, tied, tokens_BT)[0], rtol=1e-6, atol=1e-6)
    prompt = [3, 1, 4]
    assert generate(params, tied, [prompt], 12)[0] == greedy_by_definition(params, tied, prompt, 12)


def test_no_token_asked_for_is_none_drawn(tiny: ModelConfig, tiny_params: Tree) -> None:
    rows = generate_tokens(decoding_layout(tiny_params, tiny), [[1]], Generation(max_new_tokens=0))
    assert list(rows) == []


def test_same_seed_same_text_other_seed_other_text(tiny: ModelConfig, tiny_params: Tree) -> None:
    texts = [generate(tiny_params, tiny, [[1, 2]], 20, sampling=PLAIN, seed=seed) for seed in (5, 5, 6)]
    assert texts[0] == texts[1] != texts[2]


def test_samples_of_one_prompt_differ(tiny: ModelConfig, tiny_params: Tree) -> None:
    rows = generate(tiny_params, tiny, [[1, 2]] * 3, 15, sampling=PLAIN)
    assert len({tuple(row) for row in rows}) == 3


def test_a_sampled_row_is_what_its_prompt_gives_alone_whatever_its_neighbours(
    tiny: ModelConfig, tiny_params: Tree
) -> None:
    wild = {"sampling": plain_but(temperature=1.5), "seed": 7}
    one, other = [3, 1, 4, 1, 5], [9, 2]
    samples = generate(tiny_params, tiny, [one] * 3, 16, **wild)
    assert len({tuple(row) for row in samples}) == 3
    mixed = generate(tiny_params, tiny, [other, one, one, other, one], 16, **wild)
    others = generate(tiny_params, tiny, [other] * 2, 16, **wild)
    assert mixed == [others[0], samples[0], samples[1], others[1], samples[2]]


def test_log_probabilities_are_the_models_own_also_past_the_context(
    tiny: ModelConfig, tiny_params: Tree
) -> None:
    prompts = [[3, 1, 4, 1, 5], [9, 2]]
    odd = plain_but(temperature=0.5, top_k=3, repetition_penalty=1.5)
    request = Generation(max_new_tokens=14, sampling=odd, seed=1)
    rows = list(decoding.generate_rows(decoding_layout(tiny_params, tiny), prompts, request))
    for row, prompt in enumerate(prompts):
        tokens = [*prompt, *(int(drawn.tokens[row]) for drawn in rows)]
        for at, drawn in enumerate(rows, start=len(prompt)):
            window = np.array([tokens[max(0, at - tiny.context_length) : at]], np.int32)
            wanted = jax.nn.log_softmax(run(tiny_params, tiny, window)[0][0, -1])[tokens[at]]
            assert drawn.log_probs[row] == pytest.approx(float(wanted), abs=1e-5)


def test_prompts_that_cannot_be_continued_are_refused(tiny: ModelConfig, tiny_params: Tree) -> None:
    for prompts, error in (([], UserError), ([[]], UserError), ([[37]], DataError), ([[-1]], DataError)):
        with pytest.raises(error):
            generate(tiny_params, tiny, prompts, 1)


LOGITS = jnp.log(jnp.array([[0.4, 0.3, 0.2, 0.06, 0.04]]))
KEPT = [
    (PLAIN, 5),
    (plain_but(top_k=2), 2),
    (plain_but(top_k=9), 5),
    (plain_but(top_p=0.69), 2),
    (plain_but(top_p=0.71), 3),
    (plain_but(top_p=1e-9), 1),
    (plain_but(min_p=0.4), 3),
    (plain_but(min_p=1.0), 1),
    (plain_but(top_k=3, min_p=0.6), 2),
]


@pytest.mark.parametrize(("sampling", "kept"), KEPT)
def test_filters_keep_the_likeliest_tokens(sampling: SamplingConfig, kept: int) -> None:
    finite = jnp.isfinite(keep_likely(LOGITS, sampling))[0]
    assert finite.tolist() == [True] * kept + [False] * (5 - kept)


def test_draws_follow_the_filtered_distribution() -> None:
    keys = jax.random.split(jax.random.key(0), 4000)
    rows = jnp.repeat(LOGITS, 4000, axis=0)
    drawn = sample(keys, rows, jnp.zeros(rows.shape, bool), plain_but(top_k=3, temperature=0.5))
    wanted = np.array([0.4, 0.3, 0.2]) ** 2
    counts = np.bincount(drawn, minlength=5) / 4000
    np.testing.assert_allclose(counts[:3], wanted / wanted.sum(), atol=0.03)
    assert counts[3:].tolist() == [0, 0]


def test_repetition_penalty_lowers_seen_tokens_of_either_sign() -> None:
    logits = jnp.array([[2.0, -2.0, 1.0]])
    seen = jnp.array([[True, True, False]])
    assert penalize(logits, seen, 2.0).tolist() == [[1.0, -4.0, 1.0]]
    assert penalize(logits, seen, 1.0) is logits


def test_repetition_penalty_reaches_generation(tiny: ModelConfig, tiny_params: Tree) -> None:
    tokens = generate(
        tiny_params, tiny, [[1]], 11, sampling=SamplingConfig(temperature=0, repetition_penalty=1e6)
    )[0]
    positive_again = [token for token, count in Counter([1, *tokens]).items() if count > 1]
    assert not positive_again


BAD_SAMPLING = [
    {"temperature": -1},
    {"temperature": float("nan")},
    {"top_k": -1},
    {"top_p": 0},
    {"top_p": 1.1},
    {"min_p": -0.1},
    {"repetition_penalty": 0},
]


@pytest.mark.parametrize("options", BAD_SAMPLING)
def test_sampling_that_makes_no_sense_is_refused(options: dict[str, float]) -> None:
    with pytest.raises(UserError, match=next(iter(options))):
        SamplingConfig(**options)


def test_streamed_text_never_breaks_a_character_and_joins_to_the_whole() -> None:
    tokenizer = ByteTokenizer()
    text = "naïve 😀 漢字 end"
    pieces = list(stream_text(tokenizer.encode(text).tolist(), StreamDecoder(tokenizer)))
    assert "".join(pieces) == text
    assert all("\ufffd" not in piece for piece in pieces)
    cut = tokenizer.encode(text).tolist()[:8]  # in the middle of the emoji
    assert "".join(stream_text(cut, StreamDecoder(tokenizer))) == decode(tokenizer, cut) == "naïve \ufffd"


STOPS = [
    ("abcdef", ["cd"], "ab"),
    ("abcdef", ["x"], "abcdef"),
    ("aaab", ["aab"], "a"),
    ("abcabd", ["abd"], "abc"),
    ("abc", ["c", "b"], "a"),
    ("ab", ["abc"], "ab"),
    ("é漢b", ["漢"], "é"),
]


@pytest.mark.parametrize(("text", "stop", "wanted"), STOPS)
def test_text_ends_before_the_first_stop_string(text: str, stop: list[str], wanted: str) -> None:
    tokenizer = ByteTokenizer()
    assert "".join(stream_text(tokenizer.encode(text).tolist(), StreamDecoder(tokenizer), stop)) == wanted


def test_an_end_token_ends_the_text_and_gives_what_was_held_back() -> None:
    tokenizer = ByteTokenizer()
    ids = tokenizer.encode("naïve|x").tolist()
    assert "".join(stream_text(ids, StreamDecoder(tokenizer), ["|x"], end_ids=[ord("x")])) == "naïve|"
    assert "".join(stream_text(ids, StreamDecoder(tokenizer), end_ids=[ids[3]])) == "na\ufffd"
    row = Continuation(StreamDecoder(tokenizer), ["ï"])
    assert [row.push(token) for token in ids] == ["n", "a", "", "", "", "", "", ""]
    assert (row.finish(), row.text, row.token_ids, row.ended) == ("", "na", ids[:4], True)
