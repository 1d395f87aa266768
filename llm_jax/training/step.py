"""The train step: a pure function from (state, batch) to (state, metrics), many in one compiled call.

The state is a dict of what the next step needs: "params", "opt_state", "ema" (when kept) and "counters", all
in float32 or wider; the model reads "params" rounded to its own type (`precision`). Keys derive from (seed,
step). A step whose loss or gradient is not finite leaves parameters, optimizer and average as they were.
Legend: K steps that one call can do, B batch, T tokens, L layers.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from llm_jax.base.batch import Batch
from llm_jax.base.devices import Placement, made_for
from llm_jax.base.tree import State, Tree
from llm_jax.config.run import Config, OptimConfig
from llm_jax.model.decoder import stack_blocks, unstack_blocks
from llm_jax.model.moe import Use
from llm_jax.model.norms import accumulation_dtype
from llm_jax.training.losses import NEXT_TOKEN, balances_router, parts_use
from llm_jax.training.objective import Objective
from llm_jax.training.optimizer import Optimizer, horizon_at, learning_rate, make_optimizer
from llm_jax.training.precision import rounded
from llm_jax.training.schedule import Horizon
from llm_jax.training.state import Setup, abstract_state, horizon_of, key_for
from llm_jax.training.trained import join, split_trained

# A branch that compares the norm with it waits for that, so XLA need not copy the state that both read.
_IMPOSSIBLE_NORM = -1


@partial(jax.jit, static_argnames=("config", "objective", "optimizer"), donate_argnames="state")
def train_steps(
    config: Config,
    state: State,
    batches: Batch,
    count: jax.Array,
    measured_K: jax.Array,
    horizon: Horizon,
    objective: Objective = NEXT_TOKEN,
    optimizer: Optimizer | None = None,
) -> tuple[State, dict[str, Any]]:
    """Do several optimizer steps in one call, so that memory is taken once for all and the host looks on.

    Args:
        config: static; a new value compiles anew.
        state: donated.
        batches: [K, B, T] arrays, ids already checked on the host.
        count: [] int32, how many of the K steps to do; a smaller count runs the same program.
        measured_K: bool, whether a step's updates are measured, which costs a pass over the parameters.
        horizon: of the learning rate's schedule; runs of any length share one program.
        objective: static; what the steps lower.
        optimizer: static; in place of the configuration's, and then "learning_rate" is NaN.

    Returns:
        The next state, and metrics with a leading axis of K, of which the first `count` are filled: scalars
        "loss_sum" (nats), "weight", "learning_rate", "grad_norm", "update_norm" and "skipped" (non-finite
        steps in a row); "grad_norms" and "update_norms" as `part_norms` gives them. Those of updates are NaN
        in steps that are not measured or had no effect.
    """

    def pick(index: jax.Array) -> tuple[Batch, jax.Array]:
        return jax.tree.map(lambda x: x[index], (batches, measured_K))

    def step(index: jax.Array, so_far: tuple) -> tuple:
        state, lists = so_far
        state, metrics = _step(config, objective, optimizer, horizon, state, *pick(index))
        return state, jax.tree.map(lambda x_K, x: x_K.at[index].set(x), lists, metrics)

    unrolled = config.model.layers == "unroll"
    state = unstack_blocks(state) if unrolled else state
    _, shapes = jax.eval_shape(
        partial(_step, config, objective, optimizer, horizon), state, *pick(jnp.int32(0))
    )
    lists = jax.tree.map(lambda x: jnp.zeros((*measured_K.shape, *x.shape), x.dtype), shapes)
    state, lists = jax.lax.fori_loop(0, count, step, (state, lists))
    return stack_blocks(state) if unrolled else state, lists


def run_steps(
    config: Config,
    state: State,
    batches: Sequence[Batch],
    measured: Sequence[bool],
    setup: Setup = Setup(),
) -> tuple[State, dict[str, Any]]:
    """Call `train_steps` on at most `steps_per_dispatch` batches, stacked and filled up to one shape."""
    arguments = step_arguments(config, batches, measured, setup.placement)
    with made_for(setup.placement):
        return train_steps(config, state, *arguments, objective=setup.objective, optimizer=setup.optimizer)


def step_arguments(
    config: Config, batches: Sequence[Batch], measured: Sequence[bool], placement: Placement | None = None
) -> tuple[Batch, np.int32, np.ndarray, Horizon]:
    """Return what `train_steps` takes after the state, of one shape however many batches there are."""
    most = config.train.steps_per_dispatch
    full = [*batches, *[batches[-1]] * (most - len(batches))]
    stacked = jax.tree.map(lambda *arrays: np.stack(arrays), *full)
    if placement is not None:
        stacked = jax.device_put(stacked, placement.batches)
    measured_K = np.array([*measured, *[False] * (most - len(measured))])
    return stacked, np.int32(len(batches)), measured_K, horizon_of(config)


def lower_steps(config: Config, setup: Setup = Setup()) -> jax.stages.Lowered:
    """Lower `train_steps` for the shapes of a run; once that is compiled, the run's calls find it ready."""
    settings, placement = config.train, setup.placement
    shape = (settings.steps_per_dispatch, settings.batch_size, config.model.context_length)
    sharding = None if placement is None else placement.batches
    kinds = (np.int32, np.int32, np.float32, *((np.int32,) if setup.objective.packed else ()))
    batches = Batch(*(jax.ShapeDtypeStruct(shape, kind, sharding=sharding) for kind in kinds))
    if slots := config.model.factor_slots:
        factors = jax.ShapeDtypeStruct((*shape, slots), np.int32, sharding=sharding)
        batches = batches._replace(factors=factors)
    counted = np.int32(0), np.zeros(shape[0], bool), horizon_of(config)
    state = abstract_state(config, setup)
    with made_for(placement):
        return train_steps.lower(
            config, state, batches, *counted, objective=setup.objective, optimizer=setup.optimizer
        )


def train_step(
    config: Config, state: State, batch: Batch, setup: Setup = Setup(), *, measured: bool = True
) -> tuple[State, dict[str, Any]]:
    """Do one step by the program that training runs; give the next state, and `train_steps`' metrics."""
    state, lists = run_steps(config, state, [batch], [measured], setup)
    return state, jax.tree.map(lambda x_K: x_K[0], lists)


@partial(jax.jit, static_argnums=(0, 1, 2))  # Traced once for its shapes and for the loop.
def _step(
    config: Config,
    objective: Objective,
    optimizer: Optimizer | None,
    horizon: Horizon,
    state: State,
    batch: Batch,
    measured: jax.Array,
) -> tuple[State, dict[str, Any]]:
    counters = state["counters"]
    if optimizer is None:
        horizon = horizon_at(horizon, counters["step"], state["opt_state"])
        rate = learning_rate(config.optim, horizon, state["opt_state"])
        optimizer = make_optimizer(config.optim, horizon, config.model.width_ratio)
    else:
        rate = jnp.float32(jnp.nan)  # It is not known whether there is one.
    rest = {name: value for name, value in state.items() if name != "counters"}
    sums, loss_sum, weight = _gradient(config, objective, state, batch)
    # The mean's gradient and clipping are factors that the update multiplies by, not passes over memory.
    scale = 1 / jnp.maximum(weight, 1e-9)
    grad_norms = jax.tree.map(lambda norm: norm * scale, part_norms(sums))
    grad_norm = optax.tree.norm(grad_norms)
    if config.optim.clip_norm:
        scale *= jnp.minimum(1, config.optim.clip_norm / grad_norm)
    finite = jnp.isfinite(loss_sum) & jnp.isfinite(grad_norm)
    update = partial(_updates, config.optim, optimizer, sums=sums, scale=scale)
    # Updates are computed anew where they are measured, so that otherwise nothing has to keep them.
    update_norms = jax.lax.cond(
        finite & measured, lambda rest: part_norms(update(rest)[0]), lambda _: _no_norms(sums), rest
    )
    update_norm = optax.tree.norm(update_norms)
    finite &= update_norm != _IMPOSSIBLE_NORM
    # A branch rather than a choice between two trees: memory is then written once, in place.
    after = jax.lax.cond(finite, partial(_apply, config, update, counters["step"]), lambda rest: rest, rest)
    skipped = jnp.where(finite, 0, counters["skipped"] + 1)
    after["counters"] = counters | {
        "step": counters["step"] + 1,
        "batch": counters["batch"] + 1,
        "skipped": skipped,
    }
    return after, {
        "loss_sum": loss_sum,
        "weight": weight,
        "learning_rate": rate,
        "grad_norm": grad_norm,
        "update_norm": update_norm,
        "skipped": skipped,
        "grad_norms": grad_norms,
        "update_norms": update_norms,
    }


@jax.named_scope("optimizer")
def _updates(
    optim: OptimConfig, optimizer: Optimizer, rest: State, sums: Tree, scale: jax.Array
) -> tuple[Any, Any]:
    """What the gradient `sums` x `scale` adds to the trained parameters, and the next optimizer state."""
    grads = jax.tree.map(lambda g: (g * scale).astype(accumulation_dtype(g.dtype)), sums)
    return optimizer.update(grads, rest["opt_state"], split_trained(rest["params"], optim)[0])


@jax.named_scope("optimizer")
def _apply(config: Config, update: Callable[[State], tuple[Any, Any]], step: jax.Array, rest: State) -> State:
    updates, opt_state = update(rest)
    trained, frozen = split_trained(rest["params"], config.optim)
    trained = optax.apply_updates(trained, updates)
    after = {"params": join(trained, frozen), "opt_state": opt_state}
    if "ema" in rest:
        before, frozen = split_trained(rest["ema"], config.optim)
        after["ema"] = join(_average(config.optim.ema_decay, step, before, trained), frozen)
    return after


def _no_norms(tree: Tree) -> dict[str, jax.Array]:
    return jax.tree.map(lambda x: jnp.full(x.shape, jnp.nan, x.dtype), jax.eval_shape(part_norms, tree))


@partial(jax.jit, static_argnames=("config", "objective"))
def step_nats(config: Config, state: State, batch: Batch, objective: Objective = NEXT_TOKEN) -> jax.Array:
    """Return the nats of each target, [B, T], under the dropout of the step that `train_step` would do."""
    key, parts = _dropout_key(config, state), _in_parts(batch, config.train.accumulation_steps)
    params = rounded(state["params"], config.model)

    def part_nats(part: tuple[Batch, jax.Array]) -> jax.Array:
        rows, first_row = part
        return objective.nats(params, config.model, rows, key, first_row)

    nats = jax.lax.map(part_nats, parts)
    return nats.reshape(batch.targets.shape)


@jax.named_scope("norms")
def part_norms(tree: Any) -> dict[str, jax.Array]:
    """Return Euclidean norm of each top-level part of a parameter tree, []; that of "blocks" by layer,
    [L].
    """

    def norm(part: Tree, first_axis: int) -> jax.Array:
        squares = [
            jnp.sum(jnp.square(x.astype(accumulation_dtype(x.dtype))), axis=tuple(range(first_axis, x.ndim)))
            for x in jax.tree.leaves(part)
        ]
        return jnp.sqrt(sum(squares))

    def norm_of(name: str, part: Any) -> jax.Array:
        if isinstance(part, tuple):
            return jnp.stack([norm(layer, 0) for layer in part])
        return norm(part, 1 if name == "blocks" else 0)

    return {name: norm_of(name, part) for name, part in tree.items()}


def _dropout_key(config: Config, state: State) -> jax.Array:
    return key_for(config, 1, state["counters"]["step"])


def _in_parts(batch: Batch, parts: int) -> tuple[Batch, jax.Array]:
    """The batch cut along B, [parts, B / parts, T], and each part's first row, [parts]."""
    first_rows = jnp.arange(parts) * (len(batch.tokens) // parts)
    return jax.tree.map(lambda x: x.reshape(parts, -1, *x.shape[1:]), batch), first_rows


def _gradient(
    config: Config, objective: Objective, state: State, batch: Batch
) -> tuple[Tree, jax.Array, jax.Array]:
    """Gradient of the loss's sum over the whole batch, however many parts it is computed in, and (sum,
    weight) of the loss; at the parameters as the model reads them, in whose type that of one part is.
    """
    model, parts, key = config.model, config.train.accumulation_steps, _dropout_key(config, state)
    params = rounded(state["params"], model)
    trained, frozen = split_trained(params, config.optim)

    @partial(jax.value_and_grad, has_aux=True)
    def differentiate(
        trained: Tree, batch: Batch, first_row: jax.typing.ArrayLike = 0, use: Use | None = None
    ) -> tuple[jax.Array, jax.Array]:
        return objective.loss(join(trained, frozen), model, batch, key, first_row, use)

    if parts == 1:
        (loss_sum, weight), grads = differentiate(trained, batch)
    else:
        cut, first_rows = _in_parts(batch, parts)
        use = parts_use(params, model, cut, key, first_rows) if balances_router(model) else None

        def add_part(total: tuple, part: tuple) -> tuple[tuple, None]:
            (loss_sum, weight), grads = differentiate(trained, *part, use)
            return jax.tree.map(jnp.add, total, (grads, loss_sum, weight)), None

        shapes = jax.eval_shape(differentiate, trained, jax.tree.map(lambda x: x[0], cut))
        (sum_shape, weight_shape), grad_shapes = shapes
        zeros = jax.tree.map(
            lambda s: jnp.zeros(s.shape, accumulation_dtype(s.dtype)), (grad_shapes, sum_shape, weight_shape)
        )
        (grads, loss_sum, weight), _ = jax.lax.scan(add_part, zeros, (cut, first_rows))
    return grads, loss_sum, weight


def _average(decay: float, step: jax.Array, ema: Tree, params: Any) -> Tree:
    # Early averages forget faster, or the random start would weigh on them for 1/(1 - decay) steps.
    kept = jnp.minimum(decay, (1 + step) / (10 + step))
    return jax.tree.map(lambda a, p: (kept * a + (1 - kept) * p).astype(a.dtype), ema, params)
