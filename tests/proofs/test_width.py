"""Laws of muP: what a change of width does to start, rates and what comes of them."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from llm_jax.base.errors import UserError
from llm_jax.base.tree import flatten, unflatten
from llm_jax.config.model import ModelConfig
from llm_jax.config.run import Config, OptimConfig, TrainConfig
from llm_jax.model.decoder import abstract_params
from llm_jax.model.layers import Head, bias_init, embedding_init, kernel_init
from llm_jax.proofs import width as widths_of
from llm_jax.training.muon import is_muons
from llm_jax.training.optimizer import make_optimizer, rate_factors
from llm_jax.training.schedule import make_horizon
from llm_jax.training.state import abstract_state

pytestmark = pytest.mark.compiles


def a_model(width: int = 32, **settings: Any) -> ModelConfig:
    wide = widths_of.widened(ModelConfig(d_model=32, num_heads=4, num_layers=2), width)
    return dataclasses.replace(wide, vocab_size=64, dropout=0.0, **settings)


def a_config(model: ModelConfig, **optim: Any) -> Config:
    return widths_of.small(Config(model=model, optim=OptimConfig(learning_rate=1e-2, **optim)), 4)


# Parameters by the last names of their paths; what is Muon's where it is on, and the power of the width.
MATRICES = {"query", "key", "value", "attention_output", "mlp_gate", "mlp_up", "mlp_down"}
RATES: dict[str, Any] = {f"{name}/kernel": {"adamw": -1, "muon": -0.5} for name in MATRICES}
RATES |= {name: {"adamw": -1, "muon": -1} for name in ("router/kernel", "head/kernel")}
NORMS = ("norm_1", "norm_2", "attention_output_norm", "mlp_output_norm", "query_norm", "key_norm")
OTHERS = {f"{name}/{kind}" for name in (*NORMS, "final_norm") for kind in ("scale", "bias")}
OTHERS |= {f"{name}/bias" for name in (*MATRICES, "head")}
OTHERS |= {f"{name}/embedding" for name in ("token_embedding", "position_embedding")}
RATES |= {name: {"adamw": 0, "muon": 0} for name in OTHERS}

EXPERTS: dict[str, Any] = {"num_experts": 4, "experts_per_token": 2, "mlp_bias": False}
KINDS: dict[str, dict[str, Any]] = {
    "dense": {"positions": "learned"},
    "gated, all norms": {"gated_mlp": True, "qk_norm": "head", "norm_place": "both"},
    "experts": EXPERTS,
    "gated experts": EXPERTS | {"gated_mlp": True, "qkv_bias": False},
    "tied": {"tied_head": True, "head_bias": False},
}


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
@pytest.mark.parametrize("kind", KINDS)
def test_each_parameter_has_the_rate_of_the_table_under_the_optimizer_that_moves_it(
    kind: str, optimizer: str
) -> None:
    params = abstract_params(a_model(**KINDS[kind]))
    factors = dict(flatten(rate_factors(params, optimizer, 4.0)))
    moved_by_muon = dict(flatten(jax.tree.map_with_path(lambda path, _: is_muons(path), params)))
    assert factors.keys() == moved_by_muon.keys()
    for path, factor in factors.items():
        name = "/".join(path.split("/")[-2:])
        assert factor == pytest.approx(4.0 ** RATES[name][optimizer]), path
        assert moved_by_muon[path] == (name.split("/")[0] in MATRICES and name.endswith("kernel")), path
    optim = OptimConfig(optimizer="muon")
    state = jax.eval_shape(make_optimizer(optim, make_horizon(optim, 10)).init, params)
    nu = flatten(optax.tree.get(state, "nu"))
    kept = {path for path, leaf in nu if not isinstance(leaf, optax.MaskedNode)}
    assert kept == {path for path, muons in moved_by_muon.items() if not muons}


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_updates_follow_the_rates_and_the_decay_of_weights_does_not(optimizer: str) -> None:
    rng = np.random.default_rng(0)
    shapes = {"blocks/mlp_up/kernel": (6, 8), "head/kernel": (6, 5), "token_embedding/embedding": (5, 6)}
    shapes |= {"blocks/norm_1/scale": (6,), "blocks/router/kernel": (6, 4)}
    params, grads = (
        unflatten({path: jnp.float32(rng.normal(size=shape)) for path, shape in shapes.items()})
        for _ in range(2)
    )

    def updates(ratio: float, decay: float) -> dict[str, Any]:
        optim = OptimConfig(optimizer=optimizer, learning_rate=0.1, weight_decay=decay)
        transformation = make_optimizer(optim, make_horizon(optim, 10), ratio)
        update = jax.jit(lambda grads: transformation.update(grads, transformation.init(params), params)[0])
        return dict(flatten(update(grads)))

    usual, wide, decayed = updates(1.0, 0.0), updates(4.0, 0.0), updates(4.0, 0.5)
    for path, factor in flatten(rate_factors(params, optimizer, 4.0)):
        np.testing.assert_allclose(wide[path], factor * usual[path], rtol=1e-5, err_msg=path)
    for path, leaf in flatten(params):
        np.testing.assert_allclose(decayed[path] - wide[path], -0.05 * leaf, atol=1e-6, err_msg=path)


@pytest.mark.parametrize("initializer", ["torch", "gpt2"])
def test_the_start_of_kernels_falls_with_the_root_of_the_width_and_the_heads_with_the_width(
    initializer: str,
) -> None:
    def deviations(width: int) -> dict[str, float]:
        model = a_model(width, initializer=initializer, base_width=32)
        starts = {
            "block": kernel_init(model, width),
            "residual": kernel_init(model, 4 * width, residual=True),
            "bias": bias_init(model, width),
            "embedding": embedding_init(model),
        }
        drawn = {name: init(jax.random.key(0), (64, 64), jnp.float32) for name, init in starts.items()}
        drawn["head"] = Head(model).init(jax.random.key(1))["params"]["kernel"]
        return {name: float(np.std(array)) for name, array in drawn.items()}

    narrow, wide = deviations(32), deviations(256)
    for name, power in (("block", 0.5), ("residual", 0.5), ("head", 1), ("bias", 0), ("embedding", 0)):
        assert wide[name] * 8**power == pytest.approx(narrow[name], rel=0.05), name


@pytest.mark.parametrize("initializer", ["torch", "gpt2"])
def test_at_its_base_width_a_model_starts_and_learns_as_without(initializer: str) -> None:
    usual, based = (a_config(a_model(initializer=initializer, base_width=base)) for base in (0, 32))
    for settings in ({}, {"residual": True}, {"head": True}):
        drawn = [
            kernel_init(config.model, 32, **settings)(jax.random.key(0), (32, 32), jnp.float32)
            for config in (usual, based)
        ]
        np.testing.assert_array_equal(*drawn)
    params = abstract_params(based.model)
    assert set(jax.tree.leaves(rate_factors(params, "adamw", based.model.width_ratio))) == {1.0}
    assert jax.tree.structure(abstract_state(usual)) == jax.tree.structure(abstract_state(based))


def test_heads_keep_their_width_when_a_decoder_is_widened() -> None:
    wide = widths_of.widened(ModelConfig(d_model=48, num_heads=6, num_kv_heads=2, d_ff=100), 96)
    assert (wide.num_heads, wide.kv_heads, wide.head_dim, wide.mlp_width) == (12, 4, 8, 200)
    assert wide.attention_scale == pytest.approx(8**-0.5)
    with pytest.raises(UserError, match="whole numbers"):
        widths_of.widened(ModelConfig(), 70)


def test_under_mup_what_is_inside_changes_as_much_at_every_width_and_otherwise_does_not() -> None:
    config, widths = a_config(a_model()), (32, 256)
    powers = {
        base: widths_of.powers(widths, widths_of.measure(config, widths, base_width=base, report=str))
        for base in (0, 32)
    }
    assert widths_of.keeps_its_size(powers[32]), powers[32]
    assert not widths_of.keeps_its_size(powers[0])
    assert all(powers[0][place][1] > 2 * widths_of.GROWTH for place in ("attention", "MLP", "logits"))


def test_the_power_of_a_power_is_found() -> None:
    widths = np.array([64, 128, 256])
    assert widths_of.power(widths, 3 * widths**0.7) == pytest.approx(0.7)


def test_a_config_of_the_check_is_small() -> None:
    config = widths_of.small(Config(train=TrainConfig(batch_size=64, accumulation_steps=4)), 3)
    assert (config.model.num_layers, config.train.batch_size, config.train.steps) == (2, 8, 3)
