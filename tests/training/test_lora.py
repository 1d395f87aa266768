"""Adapters and frozen parameters: what is not trained keeps every bit, and merged is what was trained."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from llm_jax.base.batch import Batch
from llm_jax.base.errors import UserError
from llm_jax.base.tree import flatten
from llm_jax.config.lora import LoraConfig
from llm_jax.config.model import ModelConfig
from llm_jax.config.run import Config, OptimConfig, TrainConfig
from llm_jax.model.decoder import hidden_states, init_params, logits
from llm_jax.model.lora import IN, LEAVES, MAGNITUDE, OUT, merged, with_adapters
from llm_jax.training.state import init_state, state_from
from llm_jax.training.step import train_step
from llm_jax.training.trained import is_trained, join, split_trained

pytestmark = pytest.mark.compiles

MODEL = ModelConfig(vocab_size=31, d_model=16, num_layers=2, num_heads=2, context_length=8, dropout=0.0)
KINDS = ("lora", "dora")


def config_of(kind: str = "lora", layers: str = "scan", **optim: object) -> Config:
    lora = LoraConfig(rank=2, kind=kind) if kind else LoraConfig()  # type: ignore[arg-type]
    model = ModelConfig(**{**{f: getattr(MODEL, f) for f in MODEL.__dataclass_fields__}, "layers": layers})
    settings = OptimConfig(lora=lora, learning_rate=0.05, **optim)  # type: ignore[arg-type]
    return Config(model=model, optim=settings, train=TrainConfig(batch_size=2, steps_per_dispatch=1))


def batch_of(seed: int) -> Batch:
    tokens = np.random.default_rng(seed).integers(0, 31, (2, 9), np.int32)
    return Batch(tokens[:, :-1], tokens[:, 1:], np.ones((2, 8), np.float32))


def scores(params: object, model: ModelConfig = MODEL) -> jax.Array:
    hidden, *_ = hidden_states(params, model, batch_of(9).tokens)  # type: ignore[arg-type]
    return logits(params, model, hidden)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def base() -> dict:
    """On the host, as steps take what they get."""
    return jax.tree.map(np.array, init_params(jax.random.key(0), MODEL))


@pytest.mark.parametrize("kind", KINDS)
def test_fresh_adapters_change_no_bit_and_merge_to_what_was_there(kind: str, base: dict) -> None:
    params = with_adapters(jax.random.key(1), base, LoraConfig(rank=2, kind=kind))  # type: ignore[arg-type]
    np.testing.assert_allclose(scores(params), scores(base), rtol=0, atol=0 if kind == "lora" else 1e-6)
    for path, leaf in flatten(merged(params)):
        np.testing.assert_allclose(leaf, dict(flatten(base))[path], rtol=1e-6, err_msg=path)
    assert merged(base) is base


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("layers", ["scan", "unroll"])
def test_steps_move_adapters_alone_and_merged_is_unmerged(kind: str, layers: str, base: dict) -> None:
    config = config_of(kind, layers, ema_decay=0.5)
    state = state_from(config, jax.tree.map(jnp.array, base))
    moments = {path.split("/")[-1] for path, _ in flatten(state["opt_state"][0].mu)}
    assert moments == {IN, OUT} | ({MAGNITUDE} if kind == "dora" else set())
    for step in range(3):
        state, _ = train_step(config, state, batch_of(step))
    for part in ("params", "ema"):
        after = dict(flatten(state[part]))
        for path, leaf in flatten(base):
            np.testing.assert_array_equal(after[path], leaf, err_msg=path)
        assert all(np.any(after[f"blocks/query/{name}"]) for name in (IN, OUT))
    got, wanted = scores(merged(state["params"])), scores(state["params"])
    assert float(jnp.max(jnp.abs(wanted - scores(base)))) > 0.1
    np.testing.assert_allclose(got, wanted, rtol=0, atol=1e-6 * float(jnp.max(jnp.abs(wanted))) * 4)


def test_what_adapters_compute_is_what_the_definition_says(base: dict) -> None:
    params = with_adapters(jax.random.key(1), base, LoraConfig(rank=2, alpha=6, targets="query, mlp_*"))
    assert {name for name, layer in params["blocks"].items() if LEAVES & set(layer)} == {
        *("query", "mlp_up", "mlp_down")
    }
    query = params["blocks"]["query"]
    query[OUT] = jax.random.normal(jax.random.key(2), query[OUT].shape)
    whole = merged(params)["blocks"]["query"]["kernel"].reshape(2, 16, 16)
    plain = base["blocks"]["query"]["kernel"].reshape(2, 16, 16)
    for layer in range(2):
        np.testing.assert_allclose(
            whole[layer], plain[layer] + 3 * query[IN][layer] @ query[OUT][layer], rtol=1e-5, atol=1e-6
        )


def test_frozen_parameters_keep_every_bit_and_have_no_moments() -> None:
    config = config_of("", frozen="blocks/*, token_embedding/embedding", decay="all", weight_decay=0.5)
    state = init_state(config)
    before = dict(flatten(jax.tree.map(np.array, state["params"])))
    assert all(is_trained(path, config.optim) for path, _ in flatten(state["opt_state"][0].mu))
    state, metrics = train_step(config, state, batch_of(0))
    for path, leaf in flatten(state["params"]):
        assert np.array_equal(leaf, before[path]) != is_trained(path, config.optim), path
    assert metrics["grad_norms"].keys() == {"final_norm", "head"}


def test_halves_of_a_tree_make_it_up() -> None:
    tree = {"blocks": ({"a": {"kernel": 1}, "b": {"scale": 2}},) * 2, "head": {"kernel": 3}}
    optim = OptimConfig(frozen="blocks/a/*")
    trained, frozen = split_trained(tree, optim)
    assert trained == {"blocks": ({"b": {"scale": 2}},) * 2, "head": {"kernel": 3}}
    assert frozen == {"blocks": ({"a": {"kernel": 1}},) * 2}
    assert join(trained, frozen) == tree
    assert split_trained(tree, OptimConfig()) == (tree, {})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"frozen": "blcks/*"}, r"optim.frozen \(blcks/\*\) must be a path of parameters"),
        ({"frozen": "*"}, "must leave something to train"),
        ({"lora": LoraConfig(rank=1, targets="wq")}, r"optim.lora.targets \(wq\) must be among"),
    ],
)
def test_what_names_nothing_is_refused(settings: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        init_state(Config(model=MODEL, optim=OptimConfig(**settings)))


def test_a_model_with_experts_has_no_adapters() -> None:
    experts = {"num_experts": 2, "experts_per_token": 1, "mlp_bias": False}
    model = ModelConfig(vocab_size=31, d_model=16, num_heads=2, **experts)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="without experts"):
        init_state(Config(model=model, optim=OptimConfig(lora=LoraConfig(rank=1))))
