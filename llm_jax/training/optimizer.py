"""AdamW and Muon from optax with their schedule and decay mask; the defaults are torch's AdamW."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import optax

from llm_jax.base.tree import Tree
from llm_jax.config.run import OptimConfig
from llm_jax.training.muon import is_muons, muon_for_kernels
from llm_jax.training.schedule import Horizon, make_schedule

Optimizer = optax.GradientTransformation


def horizon_at(horizon: Horizon, step: jax.Array, opt_state: Any) -> Horizon:
    """Return the horizon after so many steps: those that the optimizer's state did not count were skipped."""
    return horizon._replace(skipped=step - _count(opt_state))


def learning_rate(optim: OptimConfig, horizon: Horizon, opt_state: Any) -> jax.Array:
    """Return the rate that the next update from this optimizer state is scaled by."""
    return jnp.asarray(make_schedule(optim, horizon)(_count(opt_state)))


def _count(opt_state: Any) -> jax.Array:
    (_, count), *_ = optax.tree.get_all_with_path(opt_state, "count")
    return count


def decay_mask(params: Tree) -> Tree:
    """Return True for kernels and embeddings, False for biases and norm scales."""
    return jax.tree.map_with_path(lambda path, _: path[-1].key in ("kernel", "embedding"), params)


def rate_factors(params: Tree, optimizer: str, width_ratio: float) -> Tree:
    """By what muP multiplies the rate of each parameter in a model so many times as wide as its base.

    Adam's entries are as large at every width, and a sum over the width of aligned ones grows with it: its
    kernels (blocks, routers, head) get 1 / ratio, what adds up over no width (embeddings, biases, norms) 1
    (Yang et al. 2022, table 3, which equals their table 8). Muon's update at Adam's size has a spectral norm
    that grows with the root of the width only, hence 1 / sqrt(ratio) (Yang, Simon and Bernstein 2023).
    """

    def factor(path: tuple, _: jax.Array) -> float:
        if path[-1].key != "kernel":
            return 1.0
        return width_ratio ** (-0.5 if optimizer == "muon" and is_muons(path) else -1)

    return jax.tree.map_with_path(factor, params)


def make_optimizer(
    optim: OptimConfig, horizon: Horizon, width_ratio: float = 1.0
) -> optax.GradientTransformation:
    """Return AdamW, or Muon and AdamW, under the schedule, for gradients that are already clipped.

    The decay of weights stays learning rate x weight_decay at every width, as in the muP authors' own AdamW,
    which multiplies the decay by what it divides the rate by.
    """
    scaling = scale_by_adam(optim.beta1, optim.beta2, optim.eps)
    if optim.optimizer == "muon":
        scaling = muon_for_kernels(scaling)
    if width_ratio != 1:
        scale = lambda updates, _: jax.tree.map(  # noqa: E731
            jnp.multiply, updates, rate_factors(updates, optim.optimizer, width_ratio)
        )
        scaling = optax.chain(scaling, optax.stateless(scale))
    return optax.chain(
        scaling,
        optax.add_decayed_weights(optim.weight_decay, decay_mask if optim.decay == "matrices" else None),
        optax.scale_by_learning_rate(make_schedule(optim, horizon)),
    )


def scale_by_adam(beta1: float, beta2: float, eps: float) -> optax.GradientTransformation:
    """Return Adam's rescaling (Kingma and Ba 2015) on optax's state, with exact bias corrections.

    optax 0.2.8 computes 1 - beta**t in float32, which leaves five digits of 1 - 0.999 and, after 30 steps of
    the tutorial, a loss 6e-5 nats from torch's; by expm1 it is 1e-6.
    """

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, optax.ScaleByAdamState]:
        del params
        mu = optax.tree.update_moment(updates, state.mu, beta1, 1)
        nu = optax.tree.update_moment_per_elem_norm(updates, state.nu, beta2, 2)
        count = optax.safe_increment(state.count)
        # As factors, since a division by a scalar would be one at every entry.
        factor1, factor2 = (1 / _bias_correction(beta, count) for beta in (beta1, beta2))

        def scaled(m: jax.Array, v: jax.Array) -> jax.Array:
            return (m * factor1 / (jnp.sqrt(v * factor2) + eps)).astype(m.dtype)

        return jax.tree.map(scaled, mu, nu), optax.ScaleByAdamState(count, mu, nu)

    return optax.GradientTransformation(optax.scale_by_adam(beta1, beta2, eps).init, update)


def _bias_correction(beta: float, count: jax.typing.ArrayLike) -> jax.Array:
    """1 - beta**count without cancellation."""
    kind = jnp.promote_types(jnp.result_type(float), jnp.float32)
    return -jnp.expm1(jnp.asarray(count, kind) * math.log(beta)) if beta else jnp.ones((), kind)
