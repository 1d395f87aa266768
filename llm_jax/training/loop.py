"""The only training loop: steps, evaluations, samples, saves, faults and signals.

It knows neither text nor tokenizers nor files of metrics: batches, evaluation, sampling and reporting are
functions that the door passes in.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import jax

from llm_jax.batch import Batch
from llm_jax.config import Config, TrainConfig
from llm_jax.errors import DivergedError, InterruptedAndSaved
from llm_jax.training.checkpoint import Checkpoints
from llm_jax.training.interrupt import stop_requests
from llm_jax.training.step import State, abstract_state, evaluated_params, init_state, run_steps
from llm_jax.tree import Tree


class Surroundings(NamedTuple):
    """What the loop calls; all of it may write, none of it changes the state."""

    batch_at: Callable[[int], Batch]  # index of a batch -> [B, T]
    evaluate: Callable[[Tree], dict[str, float]]  # must give "validation_loss" (nats per token)
    on_steps: Callable[
        [range, list[dict[str, Any]]], None
    ]  # after each compiled call: its steps, and metrics of `train_steps` of each as numbers
    on_evaluation: Callable[[int, Tree, dict[str, float]], None]
    warn: Callable[[str], None]
    aside: Callable[[], AbstractContextManager[None]] = nullcontext  # around what is no training step


def train(
    config: Config, checkpoints: Checkpoints, state: State, around: Surroundings
) -> tuple[State, dict[str, float]]:
    """Runs from the state's step to `config.train.steps`.

    Args:
        config: the run.
        checkpoints: open for writing; the last state is saved when this returns.
        state: what `start_state` gave; donated.
        around: see `Surroundings`.

    Returns:
        The last state and its evaluation.

    Raises:
        InterruptedAndSaved: a signal came; the state after the step in hand is saved.
        DivergedError: non-finite steps went on after one roll-back.
    """
    settings = config.train
    score: dict[str, float] = {}
    pending: list[tuple[range, dict[str, Any]]] = []
    step, batch_index = int(state["counters"]["step"]), int(state["counters"]["batch"])
    with stop_requests() as stop_requested:
        if settings.init_from and not step:
            # What the model was worth before: the run is judged by what it adds.
            score = around.evaluate(evaluated_params(config.model, state))
            around.on_evaluation(0, evaluated_params(config.model, state), score)
        while step < settings.steps:
            steps = range(step + 1, _next_pause(settings, step) + 1)
            batches = [around.batch_at(batch_index + number) for number in range(len(steps))]
            state, metrics = run_steps(config, state, batches, [is_logged(settings, n) for n in steps])
            step, batch_index = steps[-1], batch_index + len(steps)
            stopping = stop_requested()
            evaluating = step == settings.steps or not step % settings.eval_interval
            saving = evaluating or stopping or not step % settings.save_interval
            pending.append((steps, metrics))
            # Reading the steps before these keeps the device busy while the host looks; a save needs these,
            # too.
            if _report(pending, 0 if saving else 1, around) > settings.max_skipped:
                state = _roll_back(config, checkpoints, batch_index, around)
                step = int(state["counters"]["step"])
                pending.clear()
                continue
            if saving:
                with around.aside():
                    if evaluating:
                        score = around.evaluate(evaluated_params(config.model, state))
                        around.on_evaluation(step, evaluated_params(config.model, state), score)
                    loss = score["validation_loss"] if evaluating else None
                    checkpoints.save(step, state, metrics=score if evaluating else {}, score=loss)
            if stopping and step < settings.steps:
                checkpoints.require_saved()
                raise InterruptedAndSaved(
                    f"stopped by a signal; step {step} is saved: the same command goes on from there"
                )
    checkpoints.require_saved()
    return state, score or around.evaluate(evaluated_params(config.model, state))


def start_state(
    config: Config, checkpoints: Checkpoints, begin: Callable[[Config], State] = init_state
) -> State:
    """The newest state in the run directory that verifies, or the one that `begin` makes, which is saved
    before the first step.
    """
    if checkpoints.latest_step() is None:
        # On its device for good, as what is restored is: the same program then takes both.
        state = jax.device_put(begin(config), jax.devices()[0])
        checkpoints.save(0, state, metrics={}, score=None)
        return state
    restored = checkpoints.restore(abstract_state(config))
    assert restored is not None  # Where there are steps and none verifies, that is an error.
    return restored.state


def is_logged(settings: TrainConfig, step: int) -> bool:
    """Whether metrics.jsonl gets a line of this step."""
    return not step % settings.log_interval or step == settings.steps


def _next_pause(settings: TrainConfig, step: int) -> int:
    """The step after which the host acts, or the compiled call is full, wherever the run began."""
    intervals = (settings.steps_per_dispatch, settings.eval_interval, settings.save_interval)
    return min(settings.steps, *(step + interval - step % interval for interval in intervals))


def _report(pending: list[tuple[range, dict[str, Any]]], keep: int, around: Surroundings) -> int:
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
        around.on_steps(steps, metrics)
        most_skipped = max(most_skipped, *(each["skipped"] for each in metrics))
    return most_skipped


def _roll_back(config: Config, checkpoints: Checkpoints, batch_index: int, around: Surroundings) -> State:
    """The last saved state, set to go on with data not yet seen."""
    restored = checkpoints.restore(abstract_state(config))
    if restored is None or int(restored.state["counters"]["rollbacks"]):
        raise DivergedError(
            f"more than max_skipped ({config.train.max_skipped}) steps in a row were not finite, "
            "also after a roll-back; lower learning_rate or set clip_norm"
        )
    around.warn(
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
