"""Laws of speculative decoding: the text is distributed as the model's own, whatever is proposed."""

import dataclasses
import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from llm_jax.base.buckets import power_of_two
from llm_jax.base.errors import UserError
from llm_jax.config.decoding import SamplingConfig
from llm_jax.config.model import ModelConfig
from llm_jax.inference import speculative
from llm_jax.inference.decode import Begun, Drawing, Rows, generate_tokens, prefill
from llm_jax.inference.proposers import Draft, PromptLookup
from llm_jax.inference.request import Generation, Layout, decoding_layout
from llm_jax.inference.sampling import probabilities, sample
from llm_jax.inference.speculative import Text, chances, decide, speculate_tokens
from llm_jax.model.decoder import forward, init_params
from tests.support.sampling import PLAIN, plain_but

pytestmark = pytest.mark.compiles

GREEDY = SamplingConfig(temperature=0)
FALSE_ALARM = 1e-6  # how often a statistical test here would fail with another seed though all is well
DRAWS = 20_000
K = 3
start = jax.jit(init_params, static_argnums=1)


def distributions(count: int, seed: int) -> np.ndarray:
    """Rows over 5 tokens, [count, 5]: some sharp, some with tokens that never come."""
    rng = np.random.default_rng(seed)
    rows = rng.gamma(0.4, size=(count, 5)) * (rng.random((count, 5)) < 0.8) + np.eye(5)[rng.integers(5)] * 0.1
    return (rows / rows.sum(axis=1, keepdims=True)).astype(np.float32)


def excess(counts: np.ndarray, expected: np.ndarray) -> float:
    """The probability of counts as far from those expected as these, by chi-square; rare cells are joined."""
    assert not counts[expected == 0].any()
    order = np.argsort(expected)
    counts, expected = counts[order], expected[order]
    rare = np.searchsorted(np.cumsum(expected), 5.0, side="right")
    if rare:
        counts = np.append(counts[rare + 1 :], counts[: rare + 1].sum())
        expected = np.append(expected[rare + 1 :], expected[: rare + 1].sum())
    distance = ((counts - expected) ** 2 / expected).sum()
    return float(jax.scipy.stats.chi2.sf(distance, len(counts) - 1))


def test_taken_or_not_a_token_has_the_models_probability() -> None:
    p_NV, q_NV = distributions(200, 0), distributions(200, 1)
    each = jax.jit(jax.vmap(jax.vmap(chances, (None, None, 0)), (0, 0, None)))
    taken_NV, instead_NVV = map(np.asarray, each(p_NV, q_NV, np.arange(5)))
    np.testing.assert_allclose(instead_NVV.sum(axis=2), 1, atol=1e-6)
    came_NV = q_NV * taken_NV + np.einsum("NV,NVW->NW", q_NV * (1 - taken_NV), instead_NVV)
    np.testing.assert_allclose(came_NV, p_NV, atol=1e-6)


def test_proposals_of_the_model_itself_are_always_taken_and_those_it_never_draws_never() -> None:
    p_V = jnp.array([0.5, 0.5, 0, 0, 0])
    assert [float(chances(p_V, p_V, token)[0]) for token in (0, 1)] == [1, 1]
    taken, instead_V = chances(p_V, jnp.array([0, 0, 1.0, 0, 0]), 2)
    assert (float(taken), instead_V.tolist()) == (0, p_V.tolist())
    taken, instead_V = chances(p_V, jnp.zeros(5), -1)  # nothing proposed
    assert (float(taken), instead_V.tolist()) == (0, p_V.tolist())


def joint(p_TV: np.ndarray) -> np.ndarray:
    """Probabilities [5 ** 3] of three tokens in a row, when one does not depend on another."""
    return np.einsum("a,b,c->abc", *p_TV).ravel()


def decided(p_TV: np.ndarray, q_KV: np.ndarray, none_after: int) -> np.ndarray:
    """Counts [5 ** 3] over many draws of the first three tokens, where a call that gives fewer is followed by
    ordinary draws, as the next calls would make them.
    """

    @jax.jit
    @jax.vmap
    def draw(key: jax.Array) -> jax.Array:
        propose_key, decide_key, rest_key = jax.random.split(key, 3)
        none_K = jnp.arange(2) >= none_after
        proposed_K = jax.random.categorical(propose_key, jnp.log(q_KV))
        proposed_K = jnp.where(none_K, -1, proposed_K)
        given_KV = jnp.where(none_K[:, None], 0.0, q_KV)
        tokens_T, accepted = decide(decide_key, jnp.array(p_TV), given_KV, proposed_K)
        rest_T = jax.random.categorical(rest_key, jnp.log(p_TV))
        return jnp.where(jnp.arange(3) <= accepted, tokens_T, rest_T)

    drawn = np.asarray(draw(jax.random.split(jax.random.key(0), DRAWS)))
    return np.bincount(drawn @ np.array([25, 5, 1]), minlength=125)


@pytest.mark.parametrize("none_after", [0, 1, 2])
def test_decisions_keep_the_joint_distribution(none_after: int) -> None:
    p_TV, q_KV = distributions(3, 5), distributions(2, 6)
    counts = decided(p_TV, q_KV, none_after)
    assert excess(counts, joint(p_TV) * DRAWS) > FALSE_ALARM


def test_a_wrong_rule_would_be_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    p_TV, q_KV = distributions(3, 5), distributions(2, 6)
    for wrong in (
        lambda p_V, q_V, proposal: (chances(p_V, q_V, proposal)[0], p_V),
        lambda p_V, q_V, proposal: (jnp.where(proposal >= 0, p_V[proposal], 0), p_V),
    ):
        monkeypatch.setattr(speculative, "chances", wrong)
        assert excess(decided(p_TV, q_KV, 2), np.maximum(joint(p_TV) * DRAWS, 1e-3)) < FALSE_ALARM


def sharpened(key: int, config: ModelConfig) -> Layout:
    """A decoder whose scores are far from even."""
    params = start(jax.random.key(key), config)
    head = jax.tree.map(lambda leaf: 3 * leaf, params["head"])
    return decoding_layout(params | {"head": head}, config)


FEW = ModelConfig(vocab_size=5, context_length=16, d_model=8, num_layers=1, num_heads=2, d_ff=8)
FILTERED = SamplingConfig(temperature=0.7, top_k=4, top_p=0.9, min_p=0.02)


@pytest.mark.parametrize("sampling", [PLAIN, FILTERED], ids=["plain", "filtered"])
@pytest.mark.parametrize("kind", ["lookup", "draft"])
def test_three_tokens_have_the_joint_distribution_of_the_model(kind: str, sampling: SamplingConfig) -> None:
    layout, small = sharpened(0, FEW), sharpened(1, FEW)
    prompt = np.array([[1, 4, 2, 1, 4, 2, 0, 1]], np.int32)
    proposer, small = (Draft(2, sampling), small) if kind == "draft" else (PromptLookup(2, 5), None)
    start_B = np.zeros(1, np.int32)

    @jax.jit
    @jax.vmap
    def draw(key: jax.Array) -> tuple[jax.Array, jax.Array]:
        scores, cache = prefill(layout, prompt, start_B, 16)
        drawing = Drawing(jnp.zeros((1, 5), bool), jnp.int32(0))
        begun = Begun(prompt, Rows(key[None], start_B), scores, drawing, cache)
        _, state = speculative.first_token(sampling, proposer, small, begun)
        how = (layout, sampling, proposer, small)
        _, first, state = speculative.speculate.__wrapped__(*how, state)
        _, second, state = speculative.speculate.__wrapped__(*how, state)
        return state.text.tokens[8:11], first + second

    drawn, accepted = draw(jax.random.split(jax.random.key(0), DRAWS))
    assert 0.1 < float(accepted.mean()) < 3.9  # of 4 proposals: some are taken, and some are not
    every = np.array(list(itertools.product(range(5), repeat=3)), np.int32)
    texts = np.concatenate([np.repeat(prompt, 125, axis=0), every], axis=1)
    scores = jax.jit(forward, static_argnums=1)(layout.params, FEW, texts)[0]
    p_BTV = probabilities(scores[:, 7:10].reshape(-1, 5), sampling).reshape(125, 3, 5)
    expected = np.take_along_axis(np.asarray(p_BTV), every[..., None], axis=2).prod(axis=(1, 2))
    np.testing.assert_allclose(expected.sum(), 1, atol=1e-5)
    counts = np.bincount(np.asarray(drawn) @ np.array([25, 5, 1]), minlength=125)
    assert excess(counts, expected * DRAWS) > FALSE_ALARM


def test_probabilities_are_those_that_sample_draws_with() -> None:
    logits_V = jnp.array([1.0, 0.5, -1, 0.2, 2])
    for sampling in (PLAIN, FILTERED):
        keys = jax.random.split(jax.random.key(0), DRAWS)
        rows = jnp.repeat(logits_V[None], DRAWS, axis=0)
        drawn = np.bincount(sample(keys, rows, jnp.zeros(rows.shape, bool), sampling), minlength=5)
        expected = np.asarray(probabilities(logits_V[None], sampling)[0]) * DRAWS
        assert excess(drawn, expected) > FALSE_ALARM
    assert probabilities(logits_V[None], GREEDY)[0].tolist() == [0, 0, 0, 0, 1]


@dataclasses.dataclass(frozen=True)
class Told:
    """Proposes what it was told stands in the next slots, plus a number: always right, or always wrong."""

    count: int
    off_by: int

    def begin(self, model: jax.Array, tokens_BT: jax.Array, start_B: jax.Array, num_slots: int) -> tuple[()]:
        return ()

    def propose(self, model: jax.Array, memory: tuple[()], text: Text, key: jax.Array) -> tuple:
        tokens_K = jax.lax.dynamic_slice_in_dim(model, text.length, self.count)
        tokens_K = (tokens_K + self.off_by) % 37
        return tokens_K, jax.nn.one_hot(tokens_K, 37), ()


@pytest.fixture(scope="module")
def roomy(tiny: ModelConfig) -> ModelConfig:
    return dataclasses.replace(tiny, context_length=64)


@pytest.fixture(scope="module")
def windowed(roomy: ModelConfig) -> ModelConfig:
    return dataclasses.replace(
        roomy, d_head=4, positions="rotary", sliding_window=5, global_every=2, num_kv_heads=1
    )


def speculated(
    layout: Layout, prompt: list[int], count: int, proposer: Any, model: Any, **options: Any
) -> list[list[int]]:
    request = Generation(max_new_tokens=count, **({"sampling": GREEDY} | options))
    calls = speculate_tokens(layout, prompt, request, proposer, model)
    return [call.tolist() for call in calls]


KINDS = ["lookup", "draft"]
CASES = [("roomy", [3, 4, 4, 3], [*KINDS, "itself", "right", "wrong"])]
CASES += [("roomy", [9, 16, 13], KINDS), ("windowed", [3, 4, 4], KINDS)]


@pytest.mark.parametrize(("name", "lengths", "kinds"), CASES)
def test_greedy_text_is_that_of_ordinary_decoding_whatever_is_proposed(
    name: str, lengths: list[int], kinds: list[str], request: pytest.FixtureRequest
) -> None:
    config = request.getfixturevalue(name)
    small = dataclasses.replace(config, num_layers=1)
    layout, draft = sharpened(0, config), sharpened(1, small)
    rng = np.random.default_rng(0)
    count = 25
    for length in lengths:
        prompt = rng.integers(0, 37, length).tolist()
        rows = generate_tokens(layout, [prompt], Generation(max_new_tokens=count, sampling=GREEDY))
        wanted = [int(row[0]) for row in rows]
        slots = np.pad(np.array(wanted, np.int32), (power_of_two(length), 2 * K))
        proposers = {
            "lookup": (PromptLookup(K, 37), None),
            "draft": (Draft(K, GREEDY), draft),
            "itself": (Draft(K, GREEDY), layout),
            "right": (Told(K, 0), slots),
            "wrong": (Told(K, 1), slots),
        }
        calls = {kind: speculated(layout, prompt, count, *proposers[kind]) for kind in kinds}
        assert {kind: np.concatenate(given).tolist() for kind, given in calls.items()} == dict.fromkeys(
            calls, wanted
        )
        lengths_of = {kind: [len(given) for given in calls[kind]] for kind in kinds}
        assert lengths_of.get("wrong", [1] * count) == [1] * count
        assert lengths_of.get("right") == lengths_of.get("itself")
        assert lengths_of.get("right", [1, *[K + 1] * 6]) == [1, *[K + 1] * 6]


def test_lookup_proposes_what_followed_the_longest_and_latest_match() -> None:
    @jax.jit
    def propose(slots: jax.Array, start: jax.Array, length: jax.Array) -> tuple[jax.Array, jax.Array]:
        return PromptLookup(3, 10).propose(None, (), Text(slots, start, length), jax.random.key(0))[:2]

    def proposed(tokens: list[int], padding: int = 0) -> list[int]:
        length = padding + len(tokens)
        slots = np.pad(np.array(tokens, np.int32), (padding, 16 - length), constant_values=tokens[-1])
        tokens_K, q_KV = propose(slots, np.int32(padding), np.int32(length))
        assert q_KV.sum(axis=1).tolist() == [float(token >= 0) for token in tokens_K.tolist()]
        return tokens_K.tolist()

    assert proposed([1, 2, 3, 4]) == [-1, -1, -1]
    assert proposed([1, 2, 3, 4], padding=4) == [-1, -1, -1]  # padding is no text
    assert proposed([1, 2, 3, 4, 5, 9, 1, 2]) == [3, 4, 5]
    assert proposed([1, 2, 3, 9, 2, 4, 5, 6, 1, 2]) == [3, 9, 2]  # two tokens match, not one
    assert proposed([2, 3, 9, 8, 2, 4, 5, 6, 2]) == [4, 5, 6]  # the latest
    assert proposed([7, 1, 2, 1, 2]) == [1, 2, 1]  # goes on in its period
    assert proposed([5, 5]) == [5, 5, 5]


def test_same_seed_same_tokens_other_seed_other_tokens(roomy: ModelConfig) -> None:
    layout, proposer = sharpened(0, roomy), PromptLookup(K, 37)
    texts = [speculated(layout, [1, 2], 20, proposer, None, sampling=PLAIN, seed=seed) for seed in (5, 5, 6)]
    assert texts[0] == texts[1] != texts[2]


def test_speculation_compiles_once_per_bucket_whatever_the_lengths(roomy: ModelConfig) -> None:
    layout, small = sharpened(0, roomy), sharpened(1, roomy)
    programs = (prefill, speculative.first_token, speculative.speculate)
    for proposer, model in ((PromptLookup(K, 37), None), (Draft(K, GREEDY), small)):
        speculated(layout, [1, 2, 3], 6, proposer, model)
        before = [program._cache_size() for program in programs]
        speculated(layout, [4, 5, 6, 7], 9, proposer, model)
        speculated(layout, [8, 9, 1], 11, proposer, model, seed=7)
        assert [program._cache_size() for program in programs] == before


def test_what_cannot_be_speculated_is_refused(roomy: ModelConfig) -> None:
    layout, proposer = sharpened(0, roomy), PromptLookup(K, 37)
    penalized = plain_but(repetition_penalty=1.5)
    with pytest.raises(UserError, match="repetition_penalty"):
        speculated(layout, [1], 5, proposer, None, sampling=penalized)
    assert sum(map(len, speculated(layout, [1] * 11, 50, proposer, None))) == 50
    with pytest.raises(UserError, match="context_length"):
        speculated(layout, [1] * 12, 50, proposer, None)
    with pytest.raises(UserError, match="empty"):
        speculated(layout, [], 5, proposer, None)
