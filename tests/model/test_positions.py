"""Laws of positions: tables, turns, and what layers with windows see of both."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from llm_jax.config.model import ModelConfig, RotaryConfig
from llm_jax.model.attention import attention_pattern
from llm_jax.model.positions import frequencies, rotate, rotation, sinusoidal_table


def test_sinusoidal_table_has_sines_in_even_and_cosines_in_odd_columns() -> None:
    table = sinusoidal_table(16, 64)
    assert table[0].tolist() == [0, 1] * 32
    np.testing.assert_allclose(table[5, 6], np.sin(5 * 10000 ** (-6 / 64)))
    np.testing.assert_allclose(table[5, 7], np.cos(5 * 10000 ** (-6 / 64)))


def test_rotary_positions_turn_pairs_as_complex_numbers() -> None:
    x_BTNH = jax.random.normal(jax.random.key(0), (2, 5, 3, 8))
    position_BT = np.array([[0, 1, 2, 3, 4], [0, 0, 0, 7, 100]])
    turn = rotation(position_BT, frequencies(RotaryConfig(), 8), 1.0, jnp.dtype("float32"))
    turned = np.asarray(rotate(x_BTNH, turn))
    pairs = np.asarray(x_BTNH[..., :4]) + 1j * np.asarray(x_BTNH[..., 4:])
    expected = pairs * np.exp(1j * position_BT[:, :, None, None] * 10000.0 ** (-np.arange(4) / 4))
    np.testing.assert_allclose(turned[..., :4] + 1j * turned[..., 4:], expected, atol=1e-5)


def test_attention_with_rotary_positions_knows_distances_alone(tiny: ModelConfig) -> None:
    q_BTNH, k_BTNH = jax.random.normal(jax.random.key(0), (2, 1, 6, tiny.num_heads, tiny.head_dim))

    def scores(first: int) -> jax.Array:
        frequency_P = frequencies(RotaryConfig(), tiny.head_dim)
        turn = rotation(first + np.arange(6)[None], frequency_P, 1.0, jnp.dtype("float32"))
        return jnp.einsum("BTNH,BSNH->BNTS", rotate(q_BTNH, turn), rotate(k_BTNH, turn))

    np.testing.assert_allclose(scores(50), scores(0), atol=1e-4)
    assert np.abs(scores(0) - jnp.einsum("BTNH,BSNH->BNTS", q_BTNH, k_BTNH)).max() > 0.1


def test_layers_with_windows_and_a_theta_of_their_own_are_not_scaled(
    tiny: ModelConfig, tokens_BT: np.ndarray
) -> None:
    yarn = RotaryConfig(scaling="yarn", factor=4, original_context=4, magnitude=1.5, local_theta=50.0)
    config = dataclasses.replace(tiny, positions="rotary", rotary=yarn, sliding_window=5, global_every=2)
    near, far = (
        attention_pattern(config, jnp.arange(12), 12, jnp.zeros((1, 1), jnp.int32), local=x, start_B=None)
        for x in (True, False)
    )
    for turn, size in ((near.turn, 1.0), (far.turn, 1.5)):
        np.testing.assert_allclose(jnp.hypot(turn.cosine, turn.sine), size, rtol=1e-6)
    angle = np.arange(12)[:, None] * 50.0 ** (-np.arange(0, 4, 2) / 4)
    np.testing.assert_allclose(near.turn.cosine[0], np.cos(angle), atol=1e-6)
