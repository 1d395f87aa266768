"""The state of training: how it begins, what it is made of, and which of its parameters are evaluated."""

from functools import partial

import jax
import jax.numpy as jnp

from llm_jax.base.tree import State, Tree
from llm_jax.config.model import ModelConfig
from llm_jax.config.run import Config
from llm_jax.model.decoder import init_params
from llm_jax.model.dropout import KEY_KIND
from llm_jax.training.optimizer import make_optimizer
from llm_jax.training.precision import rounded, with_masters
from llm_jax.training.schedule import Horizon, make_horizon


def key_for(config: Config, purpose: int, step: jax.Array | int = 0) -> jax.Array:
    """Return the key of a purpose (0: the start, 1: dropout) in a step."""
    key = jax.random.key(config.train.seed, impl=KEY_KIND)
    return jax.random.fold_in(jax.random.fold_in(key, purpose), step)


def horizon_of(config: Config) -> Horizon:
    """Return the horizon of a run that has not begun."""
    return make_horizon(config.optim, config.train.steps)


@partial(jax.jit, static_argnums=0)
def init_state(config: Config) -> State:
    """The state before the first step.

    "counters" holds int32 scalars: "step" (steps done), "batch" (index of the next batch: ahead of "step"
    after a roll-back, which leaves the data in between out), "skipped" (non-finite steps in a row) and
    "rollbacks".
    """
    return state_from(config, init_params(key_for(config, 0), with_masters(config.model)))


def state_from(config: Config, params: Tree) -> State:
    """The state before the first step with these parameters, in the type that training keeps."""
    kind = with_masters(config.model).param_dtype
    params = jax.tree.map(lambda array: array.astype(kind), params)
    state = {
        "params": params,
        "opt_state": make_optimizer(config.optim, horizon_of(config), config.model.width_ratio).init(params),
        "counters": {name: jnp.int32(0) for name in ("step", "batch", "skipped", "rollbacks")},
    }
    if config.optim.ema_decay:
        state["ema"] = jax.tree.map(jnp.copy, params)
    return state


def abstract_state(config: Config) -> State:
    """Shapes and types of `init_state`, without computing anything."""
    return jax.eval_shape(lambda: init_state(config))


def evaluated_params(model: ModelConfig, state: State) -> Tree:
    """The parameters that evaluation and sampling use, in the model's own type: the average where one is
    kept.
    """
    return rounded(state.get("ema", state["params"]), model)
