"""What an optimizer does to parameters: Adam, Muon, decay, clipping, rates."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from llm_jax.base.tree import Tree, flatten
from llm_jax.config.model import ModelConfig
from llm_jax.config.run import OptimConfig
from llm_jax.training.optimizer import decay_mask, make_optimizer, scale_by_adam
from llm_jax.training.schedule import make_horizon, make_schedule
from llm_jax.training.state import init_state
from llm_jax.training.step import train_step
from tests.training.test_training import a_batch, a_config

pytestmark = pytest.mark.compiles


def test_exact_adam_equals_optax_within_its_rounding_and_the_definition_better() -> None:
    gradients = np.random.default_rng(0).normal(size=(30, 50))
    ours, theirs = scale_by_adam(0.9, 0.999, 1e-8), optax.scale_by_adam(0.9, 0.999, 1e-8)
    states = [ours.init(jnp.zeros(50)), theirs.init(jnp.zeros(50))]
    mu = nu = np.zeros(50)
    for t, gradient in enumerate(gradients, start=1):
        mu, nu = 0.9 * mu + 0.1 * gradient, 0.999 * nu + 0.001 * gradient**2
        wanted = mu / (1 - 0.9**t) / (np.sqrt(nu / (1 - 0.999**t)) + 1e-8)
        pairs = [o.update(jnp.float32(gradient), s) for o, s in zip((ours, theirs), states, strict=True)]
        states = [state for _, state in pairs]
        np.testing.assert_allclose(pairs[0][0], wanted, rtol=1e-5, atol=3e-7)
        np.testing.assert_allclose(pairs[1][0], wanted, rtol=1e-4, atol=1e-6)


def test_decay_mask_takes_kernels_and_embeddings_only(tiny_params: Tree) -> None:
    chosen = {path.split("/")[-1] for path, decays in flatten(decay_mask(tiny_params)) if decays}
    assert chosen == {"kernel", "embedding"}


def test_weight_decay_reaches_the_chosen_parameters(tiny_params: Tree) -> None:
    zeros = jax.tree.map(jnp.zeros_like, tiny_params)
    for decay, moved in (
        ("all", {"kernel", "embedding", "bias", "scale"}),
        ("matrices", {"kernel", "embedding"}),
    ):
        optim = OptimConfig(learning_rate=0.1, weight_decay=0.5, decay=decay)
        optimizer = make_optimizer(optim, make_horizon(optim, 10))
        updates, _ = optimizer.update(zeros, optimizer.init(tiny_params), tiny_params)
        assert {path.split("/")[-1] for path, leaf in flatten(updates) if jnp.any(leaf != 0)} == moved
        np.testing.assert_allclose(
            updates["head"]["kernel"], -0.05 * tiny_params["head"]["kernel"], rtol=1e-5
        )


def test_muon_moves_kernels_by_orthogonal_matrices_and_the_rest_as_adam_does(tiny_params: Tree) -> None:
    grads = jax.tree.map(lambda x: jax.random.normal(jax.random.key(0), x.shape), tiny_params)

    def updates(optimizer: str) -> dict[str, np.ndarray]:
        optim = OptimConfig(optimizer=optimizer, learning_rate=0.1, weight_decay=0)
        transformation = make_optimizer(optim, make_horizon(optim, 10))
        return dict(flatten(transformation.update(grads, transformation.init(tiny_params), tiny_params)[0]))

    moved, adams = updates("muon"), updates("adamw")
    kernels = {path for path in moved if path.startswith("blocks/") and path.endswith("/kernel")}
    assert len(kernels) == 6
    widths = {"query": 12, "key": 12, "value": 12, "attention_output": 12, "mlp_up": 20, "mlp_down": 20}
    for path, update in moved.items():
        if path not in kernels:
            np.testing.assert_array_equal(update, adams[path])
            continue
        name = path.split("/")[1]
        matrices = np.reshape(update, (3, 20 if name == "mlp_down" else 12, -1))
        singular = np.linalg.svd(matrices, compute_uv=False) / (0.1 * 0.2 * np.sqrt(widths[name]))
        assert singular.min() > 0.5, path
        assert singular.max() < 1.3, path


def test_muon_is_the_same_for_stacked_and_unrolled_layers(tiny: ModelConfig) -> None:
    ends = []
    for layers in ("scan", "unroll"):
        config = dataclasses.replace(
            a_config(dataclasses.replace(tiny, layers=layers)), optim=OptimConfig(optimizer="muon")
        )
        state, _ = train_step(config, init_state(config), a_batch(config))
        ends.append(dict(flatten(state["params"])))
    for path, leaf in ends[0].items():
        np.testing.assert_allclose(leaf, ends[1][path], atol=1e-4, err_msg=path)


def test_clipping_bounds_what_adam_sees(tiny: ModelConfig) -> None:
    config = dataclasses.replace(a_config(tiny), optim=OptimConfig(clip_norm=0.01))
    state, metrics = train_step(config, init_state(config), a_batch(config))
    assert metrics["grad_norm"] > 0.1
    np.testing.assert_allclose(
        optax.tree.norm(optax.tree.get(state["opt_state"], "mu")), 0.1 * 0.01, rtol=1e-4
    )


def test_the_learning_rate_in_the_metrics_is_the_one_applied(tiny: ModelConfig) -> None:
    optim = OptimConfig(schedule="wsd", warmup_steps=2, decay_fraction=0.5, eps=1e-30, weight_decay=0.0)
    config = dataclasses.replace(a_config(tiny), optim=optim)
    state, schedule = init_state(config), make_schedule(optim, make_horizon(optim, config.train.steps))
    bad = a_batch(config)._replace(weights=np.full((4, tiny.context_length), np.nan, np.float32))
    rates = []
    for batch in (a_batch(config), bad, a_batch(config, 1)):
        state, metrics = train_step(config, state, batch)
        rates.append(float(metrics["learning_rate"]))
    # The step that was skipped applied nothing, but the run is as long as it was.
    np.testing.assert_allclose(rates, [schedule(0), schedule(1), schedule(2)], rtol=1e-6)
