"""Laws of the decoder: causality, equivalences, shapes."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from llm_jax.base.errors import DataError, UserError
from llm_jax.base.tree import Tree, count_parameters, flatten
from llm_jax.config.model import ModelConfig, RotaryConfig
from llm_jax.model.attention import attention_weights
from llm_jax.model.cache import fill_cache
from llm_jax.model.checks import check_tokens
from llm_jax.model.decoder import (
    abstract_params,
    forward,
    hidden_states,
    init_params,
    read_out,
)
from llm_jax.model.dropout import dropout, hashed_bits

pytestmark = pytest.mark.compiles

run = jax.jit(forward, static_argnums=1)
GPT2 = {"positions": "learned", "activation": "gelu", "qkv_bias": True, "tied_head": True, "head_bias": False}
GPT2 |= {"spare_embedding_rows": 0, "initializer": "gpt2", "embedding_dropout": 0.1}
MODERN = {"positions": "rotary", "activation": "relu_squared", "qk_norm": "head"}
LLAMA = {"positions": "rotary", "norm": "rms", "activation": "silu", "gated_mlp": True, "num_heads": 6}
LLAMA |= {"num_kv_heads": 2, "d_head": 4, "output_bias": False, "mlp_bias": False}
LLAMA |= {"rotary": RotaryConfig(theta=500.0, fraction=0.5)}
GEMMA = LLAMA | {"norm": "rms_plus_one", "norm_place": "both", "qk_norm": "all_heads"}
GEMMA |= {"sliding_window": 3, "global_every": 2, "rotary": RotaryConfig(local_theta=100.0), "logit_cap": 2.0}
GEMMA |= {"attention_cap": 1.0, "attention_scale": 0.3, "embedding_scale": 4.0, "activation": "gelu"}
EXPERTS = LLAMA | {"num_experts": 5, "router_normalizes": False}
FAMILIES = {"tutorial": {}, "gpt2": GPT2, "modern": MODERN, "llama": LLAMA, "gemma": GEMMA}
FAMILIES |= {"experts": EXPERTS}


@pytest.fixture(params=FAMILIES)
def model(request: pytest.FixtureRequest, tiny: ModelConfig) -> tuple[Tree, ModelConfig]:
    config = dataclasses.replace(tiny, **FAMILIES[request.param])
    return init_params(jax.random.key(1), config), config


def test_no_output_depends_on_a_later_token(model: tuple[Tree, ModelConfig], tokens_BT: np.ndarray) -> None:
    params, config = model
    table = params["token_embedding"]["embedding"]

    def total_until(table: jax.Array, position: int) -> jax.Array:
        hidden_BTD, _, _ = hidden_states(params | {"token_embedding": {"embedding": table}}, config, rows)
        return jnp.sum(hidden_BTD[0, position] ** 2 * jnp.arange(config.d_model))

    rows = jnp.arange(config.context_length, dtype=jnp.int32)[None]  # every token another row of the table
    for position in (0, 5, 10):
        gradient = jax.grad(total_until)(table, position)
        assert jnp.all(gradient[position + 1 : config.context_length] == 0)
        assert jnp.all(jnp.any(gradient[: position + 1] != 0, axis=-1))


def test_tutorial_preset_has_the_tutorials_parameter_count() -> None:
    config = ModelConfig(vocab_size=100070, spare_embedding_rows=1)
    assert count_parameters(abstract_params(config)) == 13_307_558


def test_cached_forward_equals_full_forward_at_every_position(
    model: tuple[Tree, ModelConfig], tokens_BT: np.ndarray
) -> None:
    params, config = model
    full_BTV, _, _ = run(params, config, tokens_BT)
    first, *cuts = np.split(tokens_BT, [4, 5, 6, 9], axis=1)
    piece, _, seen = run(params, config, first)
    cache, pieces = fill_cache(seen.blocks.keys, seen.blocks.values, config.context_length), [piece]
    for cut in cuts:
        piece, cache, _ = run(params, config, cut, cache=cache)
        pieces.append(piece)
    np.testing.assert_allclose(np.concatenate(pieces, axis=1), full_BTV, atol=2e-6)
    assert int(cache.length) == config.context_length


def test_left_padded_row_equals_the_row_alone(model: tuple[Tree, ModelConfig], tokens_BT: np.ndarray) -> None:
    params, config = model
    for padding in (1, 7):
        short_BT = tokens_BT[:, padding:]
        alone, _, _ = run(params, config, short_BT)
        start_B = np.full(len(tokens_BT), padding, np.int32)
        padded, _, _ = run(params, config, tokens_BT, start_B=start_B)
        np.testing.assert_allclose(padded[:, padding:], alone, atol=2e-6)
        assert np.all(np.isfinite(padded))


def test_scan_equals_unrolled_and_remat_equals_plain(
    model: tuple[Tree, ModelConfig], tokens_BT: np.ndarray
) -> None:
    params, config = model

    def gradient(**switches: object) -> Tree:
        other = dataclasses.replace(config, **switches)
        key = jax.random.key(3)
        loss = lambda p: jnp.sum(forward(p, other, tokens_BT, dropout_key=key)[0] ** 2)  # noqa: E731
        return jax.jit(jax.grad(loss))(params)

    plain = dict(flatten(gradient()))
    for switches in ({"layers": "unroll"}, {"remat": True}, {"layers": "unroll", "remat": True}):
        for path, leaf in flatten(gradient(**switches)):
            np.testing.assert_allclose(leaf, plain[path], rtol=2e-4, atol=2e-4, err_msg=f"{switches} {path}")


def test_remat_recomputes_blocks_in_the_backward_pass(
    tiny: ModelConfig, tiny_params: Tree, tokens_BT: np.ndarray
) -> None:
    def program(remat: bool) -> str:
        config = dataclasses.replace(tiny, remat=remat)
        return str(jax.make_jaxpr(jax.grad(lambda p: jnp.sum(forward(p, config, tokens_BT)[0])))(tiny_params))

    assert "remat" in program(True) or "checkpoint" in program(True)
    assert "remat" not in program(False)
    assert "checkpoint" not in program(False)


def test_scanned_program_does_not_grow_with_depth(tiny: ModelConfig) -> None:
    def size(**switches: object) -> int:
        config = dataclasses.replace(tiny, **switches)
        tokens = jax.ShapeDtypeStruct((1, 4), jnp.int32)
        lowered = jax.jit(forward, static_argnums=1).lower(abstract_params(config), config, tokens)
        return lowered.as_text().count("\n")

    assert size(num_layers=9) == size(num_layers=3)
    assert size(num_layers=9, layers="unroll") > size(num_layers=3, layers="unroll")


def test_hashed_bits_are_uniform_and_independent_of_their_neighbours() -> None:
    draws = np.stack([np.asarray(hashed_bits(jax.random.key(seed), (64, 512))) for seed in range(8)])
    bits = (draws[..., None] >> np.arange(32, dtype=np.uint32)) & 1
    number = draws.size
    # Each of 32 bits is set half the time, and agrees half the time with that of every neighbour: in 5
    # standard deviations.
    assert np.all(abs(bits.mean((0, 1, 2)) - 0.5) < 5 * 0.5 / number**0.5)
    neighbours = {"key": bits[1:] ^ bits[:-1], "row": bits[:, 1:] ^ bits[:, :-1]}
    neighbours["column"] = bits[..., 1:, :] ^ bits[..., :-1, :]
    for name, differs in neighbours.items():
        share = differs.mean((0, 1, 2))
        assert np.all(abs(share - 0.5) < 5 * 0.5 / (differs.size / 32) ** 0.5), name
    counts = np.bincount((draws >> 24).ravel(), minlength=256)
    chi_square = np.sum((counts - number / 256) ** 2 / (number / 256))
    assert abs(chi_square - 255) < 5 * (2 * 255) ** 0.5


def test_hashed_bits_do_not_depend_on_how_an_array_is_cut_up() -> None:
    mesh = jax.make_mesh((4, 2), ("a", "b"))
    cut = jax.NamedSharding(mesh, jax.P("a", "b"))
    whole, parts = (jax.jit(hashed_bits, static_argnums=1, out_shardings=s) for s in (None, cut))
    key = jax.random.key(3)
    np.testing.assert_array_equal(whole(key, (8, 6)), parts(key, (8, 6)))


def test_dropout_keeps_the_mean_and_needs_a_key(
    tiny: ModelConfig, tiny_params: Tree, tokens_BT: np.ndarray
) -> None:
    x = jnp.ones((200, 200))
    dropped = dropout(jax.random.key(0), 0.25, x)
    assert abs(float(dropped.mean()) - 1) < 0.02
    assert set(np.unique(dropped).tolist()) == {0.0, np.float32(1 / 0.75).item()}
    assert dropout(None, 0.25, x) is x
    with_key = [run(tiny_params, tiny, tokens_BT, dropout_key=jax.random.key(n))[0] for n in (0, 0, 1)]
    assert jnp.array_equal(with_key[0], with_key[1])
    assert not jnp.array_equal(with_key[0], with_key[2])


def test_attention_weights_sum_to_one_and_are_zero_where_masked() -> None:
    q, k = jax.random.normal(jax.random.key(0), (2, 1, 5, 2, 4))
    mask_BTS = jnp.tril(jnp.ones((5, 5), bool))[None]
    weights_BNTS, _, _ = attention_weights(ModelConfig(d_model=8, num_heads=2), q, k, mask_BTS)
    np.testing.assert_allclose(weights_BNTS.sum(-1), 1, atol=1e-6)
    assert jnp.all(jnp.where(mask_BTS[:, None], 0, weights_BNTS) == 0)


def test_bfloat16_arithmetic_keeps_logits_wide_and_near(
    tiny: ModelConfig, tiny_params: Tree, tokens_BT: np.ndarray
) -> None:
    wide, _, _ = run(tiny_params, tiny, tokens_BT)
    narrow, _, _ = run(tiny_params, dataclasses.replace(tiny, dtype="bfloat16"), tokens_BT)
    assert narrow.dtype == jnp.float32
    assert 1e-5 < float(jnp.abs(narrow - wide).max()) < 0.1


def test_stored_type_of_parameters_follows_the_configuration(tiny: ModelConfig) -> None:
    stored = abstract_params(dataclasses.replace(tiny, param_dtype="bfloat16"))
    assert {leaf.dtype for _, leaf in flatten(stored)} == {jnp.dtype("bfloat16")}


def test_initial_weights_have_torchs_spread(tiny: ModelConfig) -> None:
    config = dataclasses.replace(tiny, d_model=96, d_ff=160, vocab_size=500)
    params = dict(flatten(init_params(jax.random.key(0), config)))
    for path, fan_in in {"blocks/mlp_up/kernel": 96, "blocks/mlp_down/kernel": 160, "head/bias": 96}.items():
        limit = 1 / np.sqrt(fan_in)
        assert np.abs(params[path]).max() <= limit
        assert abs(float(params[path].std()) - limit / np.sqrt(3)) < 0.1 * limit
    assert abs(float(params["token_embedding/embedding"].std()) - 1) < 0.02
    layers = params["blocks/query/kernel"]
    assert not jnp.array_equal(layers[0], layers[1])


def test_gpt2_initial_weights_shrink_into_the_residual_stream(tiny: ModelConfig) -> None:
    config = dataclasses.replace(tiny, d_model=96, num_layers=8, **GPT2)
    params = dict(flatten(init_params(jax.random.key(0), config)))
    assert abs(float(params["blocks/mlp_up/kernel"].std()) - 0.02) < 0.001
    assert abs(float(params["blocks/mlp_down/kernel"].std()) - 0.02 / 4) < 0.0005
    assert not params["blocks/mlp_up/bias"].any()


def test_normed_queries_and_keys_have_one_size(tiny: ModelConfig, tokens_BT: np.ndarray) -> None:
    config = dataclasses.replace(tiny, qk_norm="head")
    _, _, seen = run(init_params(jax.random.key(0), config), config, tokens_BT)
    for heads in (seen.blocks.queries, seen.blocks.keys):
        np.testing.assert_allclose(jnp.mean(jnp.square(heads), axis=-1), 1, rtol=1e-3)


def test_ids_and_lengths_are_checked_on_the_host(tiny: ModelConfig) -> None:
    check_tokens(np.array([[0, 36]]), tiny, "x")
    for bad in (-1, 37):
        with pytest.raises(DataError, match=f"x has token id {bad}; ids must be from 0 to 36"):
            check_tokens(np.array([[3, bad]]), tiny, "x")
    with pytest.raises(UserError, match="context_length"):
        check_tokens(np.zeros((1, 13), int), tiny, "x")


def test_what_is_seen_costs_nothing_where_nobody_looks(
    tiny: ModelConfig, tiny_params: Tree, tokens_BT: np.ndarray
) -> None:
    def program(take: Callable[[tuple], Any]) -> str:
        compiled = jax.jit(lambda p, tokens: take(forward(p, tiny, tokens))).lower(tiny_params, tokens_BT)
        return compiled.compile().as_text() or ""

    stacked_scores = "f32[3,3,3,12,12]"  # [L, B, N, T, S]
    assert stacked_scores in program(lambda out: (out[0], out[2]))
    assert stacked_scores not in program(lambda out: out[0])


@pytest.mark.parametrize("layers", ["scan", "unroll"])
def test_what_is_seen_is_what_was_computed(
    tiny: ModelConfig, tiny_params: Tree, tokens_BT: np.ndarray, layers: str
) -> None:
    config = dataclasses.replace(tiny, layers=layers)
    scores, _, seen = jax.device_get(run(tiny_params, config, tokens_BT))
    blocks = seen.blocks
    np.testing.assert_array_equal(blocks.block_input[0], seen.token_embedding + seen.position_embedding)
    np.testing.assert_array_equal(blocks.block_input[1:], blocks.block_output[:-1])
    np.testing.assert_allclose(
        blocks.block_output, blocks.block_input + blocks.attention_output + blocks.mlp_output, atol=1e-5
    )
    np.testing.assert_allclose(
        np.where(seen.attention_pattern.mask[None, :, None], blocks.scores, -np.inf),
        np.where(blocks.masked_scores < -1e30, -np.inf, blocks.masked_scores),
    )
    np.testing.assert_allclose(blocks.weights.sum(axis=-1), 1, rtol=1e-5)
    head = jax.device_get(tiny_params["head"])
    np.testing.assert_allclose(scores, seen.hidden @ head["kernel"] + head["bias"], atol=1e-5)


def test_what_is_read_off_the_last_block_is_the_output(
    model: tuple[Tree, ModelConfig], tokens_BT: np.ndarray
) -> None:
    params, config = model
    scores_BTV, _, seen = run(params, config, tokens_BT)
    last_BTD = seen.blocks.block_output[-1]
    read = jax.jit(read_out, static_argnums=1)
    np.testing.assert_allclose(read(params, config, last_BTD), scores_BTV, atol=1e-6)
    np.testing.assert_array_equal(read(params, config, last_BTD[0]), read(params, config, last_BTD)[0])
