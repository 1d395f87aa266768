"""Measures what `training.budget` plans with, on the run's own model, text and machine."""

import dataclasses
import tempfile
import time
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

from llm_jax.base.devices import on_one_device
from llm_jax.base.process import seconds_since_start
from llm_jax.base.tree import count_parameters
from llm_jax.checkpoints.reader import read_about
from llm_jax.checkpoints.step_files import checkpoint_directory, saved_steps
from llm_jax.checkpoints.writer import Checkpoints
from llm_jax.config.load import config_from_dict
from llm_jax.config.run import Config
from llm_jax.model.decoder import abstract_params
from llm_jax.planning.time_budget import LADDER, Costs, adopt_plan, choose_rung, is_sized, plan_run, with_size
from llm_jax.runs import data
from llm_jax.runs.data import Materials
from llm_jax.training.state import evaluated_params, placed_state
from llm_jax.training.step import lower_steps, run_steps
from llm_jax.training.throughput import flops_per_token, measure_peak_flops

_TIMED_CALLS = 3
_SHARE_OF_PEAK = 0.3  # what a train step usually reaches; only for choosing a size, before anything is timed
_REPORT_SECONDS = 4.0  # the report's pictures and checks, and the sample's programs


def planned_config(
    config: Config, seconds: float, report: Callable[[str], None], given: Collection[str] = ()
) -> Config:
    """Return the configuration that takes this long from the process's start; a run that exists keeps its
    plan.

    Args:
        config: the user's.
        seconds: the time.
        report: gets one line a remark.
        given: settings that the user or a depth gave, which stay.

    Raises:
        UserError: the time is too short.
    """
    directory = checkpoint_directory(config.train.run)
    if saved_steps(directory):
        report(f"{config.train.run} goes on with the plan that it was begun with")
        recorded = read_about(directory)["config"]
        return adopt_plan(config, config_from_dict(recorded, str(config.train.run)), given)
    own_size = is_sized(config, given)
    material = data.gather(config, report=report)
    if not own_size:
        config = with_size(config, LADDER[_rung(material, seconds)])
    material = material._replace(config=data.with_vocabulary(config, material.store.tokenizer))
    plan = plan_run(config, seconds, measure(material), given)
    model, train = plan.config.model, plan.config.train
    report(
        f"Plan for {seconds:.0f} s: {model.num_layers} layers × width {model.d_model}"
        f"{' (your size)' if own_size else ''}, {train.steps:,} steps of {train.batch_size} × "
        f"{model.context_length} tokens, "
        f"{plan.tokens / len(material.store.tokens('train')):.1f} times the text; expected to end after "
        f"{plan.seconds:.0f} s"
    )
    return plan.config


def _rung(material: Materials, seconds: float) -> int:
    configs = [with_size(material.config, size).model for size in LADDER]
    rate = _SHARE_OF_PEAK * measure_peak_flops(material.config.model.dtype)
    parameters = [count_parameters(abstract_params(model)) for model in configs]
    seen = [seconds * rate / flops_per_token(model) for model in configs]
    return choose_rung(parameters, seen, len(material.store.tokens("train")))


def measure(material: Materials) -> Costs:
    """Run, and forget, a few calls of the train step, an evaluation and a save."""
    config = material.config
    count = config.train.steps_per_dispatch
    batches = [material.batch_at(index) for index in range(count)]
    setup = material.setup(on_one_device())
    state = placed_state(config, setup)

    def call(state: Any) -> tuple[Any, float]:
        began = time.perf_counter()
        state, metrics = run_steps(config, state, batches, [False] * count, setup)
        float(metrics["loss_sum"][0])  # waits for the device
        return state, time.perf_counter() - began

    state, _ = call(state)  # compiles
    timed = []
    for _ in range(_TIMED_CALLS):
        state, seconds = call(state)
        timed.append(seconds)
    began = time.perf_counter()
    shorter = dataclasses.replace(config, train=dataclasses.replace(config.train, steps=1))
    lower_steps(shorter, setup).compile()
    again = time.perf_counter() - began
    material.evaluate(evaluated_params(config.model, state))  # compiles; the run finds the program ready
    began = time.perf_counter()
    material.evaluate(evaluated_params(config.model, state))
    evaluation = time.perf_counter() - began
    with (
        tempfile.TemporaryDirectory() as folder,
        Checkpoints(Path(folder), keep=2, about={}, report=lambda _: None) as checkpoints,
    ):
        checkpoints.save(0, state, metrics={}, score=None)
        began = time.perf_counter()
        checkpoints.save(1, state, metrics={}, score=None)
        save = time.perf_counter() - began
    return Costs(
        elapsed=seconds_since_start(),
        compile=again,
        step=sorted(timed)[_TIMED_CALLS // 2] / count,
        evaluation=evaluation,
        save=save,
        ending=_REPORT_SECONDS,
    )
