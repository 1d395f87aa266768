"""The only training loop: steps, evaluations, samples, saves, faults and signals.

It knows neither text nor tokenizers nor files of metrics: batches, evaluation, sampling and reporting are
functions that the command passes in. What is worth keeping is saved before anything of it is shown, and what
shows or records it may fail: the run goes on.
"""

import math
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import jax

from llm_jax.base.batch import Batch
from llm_jax.base.devices import first_device, on_one_device
from llm_jax.base.errors import DivergedError, InterruptedAndSaved, UserError
from llm_jax.base.tree import State, Tree
from llm_jax.checkpoints.writer import Checkpoints
from llm_jax.config.run import Config, TrainConfig
from llm_jax.training.interrupt import stopped
from llm_jax.training.observers import Guard
from llm_jax.training.state import Setup, abstract_state, evaluated_params, init_state
from llm_jax.training.step import run_steps


class Callbacks(NamedTuple):
    """What the loop calls; all of it may write, none of it changes the state, and all but `batch_at` may
    fail.
    """

    batch_at: Callable[[int], Batch]  # index of a batch -> [B, T]
    evaluate: Callable[[Tree], dict[str, float]]  # must give "validation_loss" (nats per token)
    on_steps: Callable[
        [range, list[dict[str, Any]]], None
    ]  # after each compiled call: its steps, and metrics of `train_steps` of each as numbers
    on_evaluation: Callable[[int, Tree, dict[str, float]], None]  # once the step is saved with that score
    warn: Callable[[str], None]
    aside: Callable[[], AbstractContextManager[None]] = nullcontext  # around what is no training step
    stop_requested: Callable[[], str] = str  # the signal that asked the run to stop; "" while none did


def train(
    config: Config, checkpoints: Checkpoints, state: State, callbacks: Callbacks, setup: Setup = Setup()
) -> tuple[State, dict[str, float]]:
    """Run from the state's step until the run is over.

    Args:
        config: the run.
        checkpoints: open for writing; the last state is saved when this returns.
        state: what `start_state` gave; donated.
        callbacks: see `Callbacks`.
        setup: what steps lower, and where arrays lie.

    Returns:
        The last state and its evaluation.

    Raises:
        InterruptedAndSaved: a signal came; the state after the step in hand is saved.
        DivergedError: non-finite steps went on after one roll-back.
    """
    settings, guard = config.train, Guard(callbacks.warn)
    score: dict[str, float] = {}
    pending: list[tuple[range, dict[str, Any]]] = []
    step, batch_index = int(state["counters"]["step"]), int(state["counters"]["batch"])
    saved_at = time.monotonic()
    if settings.init_from and not step:
        # What the model was worth before: the run is judged by what it adds.
        score = _evaluate(config, state, callbacks, guard, 0)
        _show(config, state, score, callbacks, guard, 0)
    while not is_over(settings, step, checkpoints):
        steps = range(step + 1, _next_pause(settings, step) + 1)
        batches = [callbacks.batch_at(batch_index + number) for number in range(len(steps))]
        logged = [is_logged(settings, number) for number in steps]
        state, metrics = run_steps(config, state, batches, logged, setup)
        step, batch_index = steps[-1], batch_index + len(steps)
        evaluating = step == settings.steps or not step % settings.eval_interval
        due = time.monotonic() - saved_at >= 60 * (settings.save_minutes or math.inf)
        saving = evaluating or due or bool(callbacks.stop_requested()) or not step % settings.save_interval
        pending.append((steps, metrics))
        # Reading the steps before these keeps the device busy while the host looks; a save needs these, too.
        if _report(pending, 0 if saving else 1, callbacks, guard) > settings.max_skipped:
            state = _roll_back(abstract_state(config, setup), config, checkpoints, batch_index, callbacks)
            step = int(state["counters"]["step"])
            pending.clear()
            continue
        if saving:
            with callbacks.aside():
                score = _evaluate(config, state, callbacks, guard, step) if evaluating else {}
                checkpoints.save(step, state, metrics=score, score=score.get("validation_loss"))
                _show(config, state, score, callbacks, guard, step)
            saved_at = time.monotonic()
        ended = is_over(settings, step, checkpoints)
        if saving and not ended and (name := callbacks.stop_requested()):
            checkpoints.require_saved()
            raise InterruptedAndSaved(
                stopped(name, f". Step {step:,} is saved; run the same command to resume.")
            )
    checkpoints.require_saved()
    return state, score or callbacks.evaluate(evaluated_params(config.model, state))


def claim_device(report: Callable[[str], None]) -> None:
    """Say which device trains, where there are several.

    Raises:
        UserError: this is one of several processes, of which each would train the whole model; or JAX shall
            stop at numbers that are not finite, which training makes on purpose and handles itself.
    """
    first = first_device()
    if jax.process_count() > 1:
        raise UserError(
            f"train must be one process, and JAX was started with {jax.process_count()}; start it alone"
        )
    if jax.config.values["jax_debug_nans"] or jax.config.values["jax_debug_infs"]:
        raise UserError(
            "JAX_DEBUG_NANS and JAX_DEBUG_INFS must be unset: NaN marks what was not measured, and steps "
            "that are not finite are left out"
        )
    if idle := jax.devices()[1:]:
        report(f"{len(idle)} of {1 + len(idle)} devices stay idle: the model trains on {first} alone")


def start_state(
    config: Config,
    checkpoints: Checkpoints,
    begin: Callable[[Config], State] = init_state,
    setup: Setup = Setup(),
) -> State:
    """Return the newest state in the run directory that verifies, or the one that `begin` makes, which is
    saved before the first step.
    """
    if checkpoints.latest_step() is None:
        # Where it stays, as what is restored does: the same program then takes both.
        placement = setup.placement or on_one_device()
        state = jax.device_put(begin(config), placement.state)
        checkpoints.save(0, state, metrics={}, score=None)
        return state
    restored = checkpoints.restore(abstract_state(config, setup))
    assert restored is not None  # Where there are steps and none verifies, that is an error.
    return restored.state


def is_over(settings: TrainConfig, step: int, checkpoints: Checkpoints) -> bool:
    """Return whether a run ends here: its steps are done, or `patience` is used up."""
    return step >= settings.steps or 0 < settings.patience <= checkpoints.since_best


def is_logged(settings: TrainConfig, step: int) -> bool:
    """Return whether metrics.jsonl gets a line of this step."""
    return not step % settings.log_interval or step == settings.steps


def _next_pause(settings: TrainConfig, step: int) -> int:
    """The step after which the host acts, or the compiled call is full, wherever the run began."""
    intervals = (settings.steps_per_dispatch, settings.eval_interval, settings.save_interval)
    return min(settings.steps, *(step + interval - step % interval for interval in intervals))


def _evaluate(
    config: Config, state: State, callbacks: Callbacks, guard: Guard, step: int
) -> dict[str, float]:
    """The state's score; empty, with a warning, where it could not be had: the step is saved without one."""
    with guard(f"the evaluation of step {step}"):
        return callbacks.evaluate(evaluated_params(config.model, state))
    return {}


def _show(
    config: Config, state: State, score: dict[str, float], callbacks: Callbacks, guard: Guard, step: int
) -> None:
    if score:
        with guard("what is shown of an evaluation"):
            callbacks.on_evaluation(step, evaluated_params(config.model, state), score)


def _report(
    pending: list[tuple[range, dict[str, Any]]], keep: int, callbacks: Callbacks, guard: Guard
) -> int:
    """Hands over the metrics of all but the last `keep` calls; gives the most non-finite steps in a row among
    them.
    """
    most_skipped = 0
    while len(pending) > keep:
        steps, on_device = pending.pop(0)
        lists = jax.device_get(on_device)
        metrics = [
            jax.tree.map(lambda x_K, index=index: x_K[index].tolist(), lists) for index in range(len(steps))
        ]
        with guard("what is shown of steps"):
            callbacks.on_steps(steps, metrics)
        most_skipped = max(most_skipped, *(each["skipped"] for each in metrics))
    return most_skipped


def _roll_back(
    wanted: State, config: Config, checkpoints: Checkpoints, batch_index: int, callbacks: Callbacks
) -> State:
    """The last saved state, set to go on with data not yet seen."""
    restored = checkpoints.restore(wanted)
    if restored is None or int(restored.state["counters"]["rollbacks"]):
        raise DivergedError(
            f"more than max_skipped ({config.train.max_skipped}) steps in a row were not finite, "
            "also after a roll-back; lower learning_rate or set clip_norm"
        )
    callbacks.warn(
        f"more than {config.train.max_skipped} steps in a row were not finite: "
        f"rolled back to step {restored.step}, leaving out the data since then"
    )
    counters: dict[str, Any] = restored.state["counters"]
    counters = counters | {
        "batch": counters["batch"] * 0 + batch_index,
        "skipped": counters["skipped"] * 0,
        "rollbacks": counters["rollbacks"] + 1,
    }
    return restored.state | {"counters": counters}
