"""The state of training: how it begins, what it is made of, and which of its parameters are evaluated."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from llm_jax.base.devices import Placement
from llm_jax.base.tree import State, Tree
from llm_jax.config.model import ModelConfig
from llm_jax.config.run import Config
from llm_jax.model.dropout import KEY_KIND
from llm_jax.model.lora import with_adapters
from llm_jax.training.losses import NEXT_TOKEN
from llm_jax.training.objective import Objective
from llm_jax.training.optimizer import Optimizer, make_optimizer
from llm_jax.training.precision import rounded, with_masters
from llm_jax.training.schedule import Horizon, make_horizon
from llm_jax.training.trained import require_some_trained, split_trained


def key_for(config: Config, purpose: int, step: jax.Array | int = 0) -> jax.Array:
    """Return the key of a purpose (0: the start, 1: dropout, 2: adapters) in a step."""
    key = jax.random.key(config.train.seed, impl=KEY_KIND)
    return jax.random.fold_in(jax.random.fold_in(key, purpose), step)


def horizon_of(config: Config) -> Horizon:
    """Return the horizon of a run that has not begun."""
    return make_horizon(config.optim, config.train.steps)


class Setup(NamedTuple):
    """What a train step is, beside its configuration."""

    objective: Objective = NEXT_TOKEN
    placement: Placement | None = None  # None: wherever arrays are, as for a step by itself
    optimizer: Optimizer | None = None  # None: the one that the configuration describes


@partial(jax.jit, static_argnums=(0, 1, 2))
def init_state(
    config: Config, objective: Objective = NEXT_TOKEN, optimizer: Optimizer | None = None
) -> State:
    """Return the state before the first step.

    "counters" holds int32 scalars: "step" (steps done), "batch" (index of the next batch: ahead of "step"
    after a roll-back, which leaves the data in between out), "skipped" (non-finite steps in a row) and
    "rollbacks".
    """
    params = objective.init_params(key_for(config, 0), with_masters(config.model))
    return state_from(config, params, optimizer)


def placed_state(config: Config, setup: Setup) -> State:
    """Return the state before the first step where the setup has it."""
    state = init_state(config, setup.objective, setup.optimizer)
    return state if setup.placement is None else jax.device_put(state, setup.placement.state)


def state_from(config: Config, params: Tree, optimizer: Optimizer | None = None) -> State:
    """Return the state before the first step with these parameters, in the type that training keeps."""
    optimizer = optimizer or make_optimizer(config.optim, horizon_of(config), config.model.width_ratio)
    kind = with_masters(config.model).param_dtype
    params = jax.tree.map(lambda array: array.astype(kind), params)
    if config.optim.lora.rank:
        params = with_adapters(key_for(config, 2), params, config.optim.lora)
    require_some_trained(params, config.optim)
    state = {
        "params": params,
        "opt_state": optimizer.init(split_trained(params, config.optim)[0]),
        "counters": {name: jnp.int32(0) for name in ("step", "batch", "skipped", "rollbacks")},
    }
    if config.optim.ema_decay:
        state["ema"] = jax.tree.map(jnp.copy, params)
    return state


def abstract_state(config: Config, setup: Setup = Setup()) -> State:
    """Return shapes, types and, with a placement, shardings of `init_state`, without computing anything."""
    shapes = jax.eval_shape(lambda: init_state(config, setup.objective, setup.optimizer))
    if setup.placement is None:
        return shapes
    sharding = setup.placement.state
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), shapes)


def evaluated_params(model: ModelConfig, state: State) -> Tree:
    """Return the parameters that evaluation and sampling use, in the model's own type: the average where one
    is kept.
    """
    return rounded(state.get("ema", state["params"]), model)
