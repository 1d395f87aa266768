"""A whole run, wired: data, state, steps, record, sample and report."""

import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, wait
from functools import partial
from typing import Any, NamedTuple

from llm_jax.base.compilation import CompileTime, compile_time
from llm_jax.base.devices import on_one_device
from llm_jax.base.environment import environment, versions
from llm_jax.base.process import seconds_since_start
from llm_jax.base.terminal import say, say_json
from llm_jax.base.tree import State, Tree, count_parameters
from llm_jax.checkpoints.reader import read_about
from llm_jax.checkpoints.step_files import checkpoint_directory
from llm_jax.checkpoints.writer import Checkpoints
from llm_jax.config.load import to_dict
from llm_jax.config.run import Config
from llm_jax.runs import continuing, data, record, starts
from llm_jax.runs.data import Materials
from llm_jax.runs.init_from import first_state
from llm_jax.runs.progress import LiveLine
from llm_jax.runs.samples import check_prompt, draw_sample
from llm_jax.training import loop
from llm_jax.training.interrupt import leave_unsaved, stop_requests
from llm_jax.training.observers import Guard, warn
from llm_jax.training.state import Setup
from llm_jax.training.step import lower_steps
from llm_jax.training.throughput import flops_per_token, measure_peak_flops

_PREFIX = "validation_"  # of an evaluation's numbers in metrics.jsonl
_GLANCE = 0.05  # seconds between looks for a signal


# Makes the report of a run that has ended from its materials, parameters and the function that names the
# signal which asked to stop; gives the page's path, None where it was given up.
LeaveReport = Callable[[Materials, Tree, Callable[[], str]], str | None]
# Shows a run while it trains, from its files, as often as it thinks fit: from its materials, baselines and
# whether it still trains.
Watch = Callable[[Materials, Mapping[str, float], bool], None]


def run(
    config: Config,
    leave_report: LeaveReport,
    wanted_seconds: float | None = None,
    *,
    agreed: bool = False,
    watch: Watch | None = None,
) -> None:
    """Begin a run, or go on with the one in its directory, to its last step.

    Args:
        config: the run.
        leave_report: called at the end.
        wanted_seconds: the time it was planned for; at the end it stands beside the time it took.
        agreed: whether a run that goes on may have other settings for the steps to come.
        watch: called after steps and evaluations.

    Raises:
        UserError: the directory is in use, or holds a run of another configuration; or the prompt is none.
        DataError: the text cannot be used.
        CheckpointError: the directory cannot be written, or holds a run on other data or nothing undamaged.
        InterruptedAndSaved: a signal came before the last step.
    """
    say(f"data: {config.data.corpus} (cached in {config.data.prepared})")
    material = data.gather(config, report=say)
    config = material.config
    check_prompt(material)
    setup = material.setup(on_one_device())
    about = _about(material)
    directory = checkpoint_directory(config.train.run)
    with (
        stop_requests() as stop_requested,
        Checkpoints(directory, keep=config.train.keep, about=about, report=say) as checkpoints,
        compile_time() as compiling,
        ThreadPoolExecutor(1) as worker,
    ):
        latest = checkpoints.latest_step()
        if latest is not None:
            known = read_about(directory)
            continuing.require_same_run(known, config, material.store.fingerprint, agreed=agreed)
        # Beside the making and saving of the first state; nothing else is refused from here on.
        compiled = lambda: lower_steps(config, setup).compile()  # noqa: E731
        ready = worker.submit(compiled) if latest != config.train.steps else None
        begin = partial(first_state, origin=material.origin, objective=setup.objective)
        state = loop.start_state(config, checkpoints, begin, setup)
        step, guard = int(state["counters"]["step"]), Guard(warn)
        if latest is not None:
            material = _with_history(material, state["counters"])
            about["changes"] += material.history
        with guard(continuing.CHANGES):
            continuing.write_history(config.train.run, material.history)
        if step < config.train.steps:
            with guard(starts.FILE):
                _note_start(config, step)
        run_record = record.RunRecord(config.train.run, to_dict(config), step, warn)
        if ready:
            while not (wait([ready], _GLANCE).done or stop_requested()):
                pass
            if name := stop_requested():
                leave_unsaved(f"stopped by {name} before the first step; run the same command to begin", name)
            ready.result()
        observing = _Observing(run_record, compiling, leave_report, stop_requested, watch)
        summary = _train(material, checkpoints, state, setup, observing)
    if wanted_seconds is not None:
        took = round(seconds_since_start(), 1)
        say(f"took {took:.1f} s of the {wanted_seconds:.0f} s that you gave ({took / wanted_seconds:.1%})")
        summary["time"] = {"wanted": wanted_seconds, "took": took}
    say_json(summary)


def _about(material: Materials) -> dict[str, Any]:
    """What every checkpoint of a run says of itself."""
    return {
        "config": to_dict(material.config),
        "tokenizer": material.store.tokenizer.to_dict(),
        "data_fingerprint": material.store.fingerprint,
        "labels": list(material.task.labels(material.config, material.store)),
        "versions": versions(),
        "changes": [],  # filled before anything is saved that comes after them
    } | (material.origin.about() if material.origin else {})


class _Observing(NamedTuple):
    """What records a run, and what asks it to stop."""

    run_record: record.RunRecord
    compiling: CompileTime
    leave_report: LeaveReport
    stop_requested: Callable[[], str]
    watch: Watch | None


def _with_history(material: Materials, counters: Tree) -> Materials:
    """The materials with what changed up to now; says what did since the checkpoint of the state."""
    run, step = material.config.train.run, int(counters["step"])
    about = read_about(checkpoint_directory(run), step)
    material, lines = continuing.went_on(material, about, int(counters["batch"]))
    for line in lines:
        say(line)
    return material


def _note_start(config: Config, step: int) -> None:
    """Writes down what this start runs on, and says what is not as at the last."""
    run, now = config.train.run, environment()
    if step and (found := starts.deviations(starts.read_start(run), now)):
        warn(
            f"not as at the last start: {'; '.join(found)}. Equal bits are promised for the same versions, "
            "kind of device and number of threads"
        )
    starts.add_start(run, step, now)


def _train(
    material: Materials, checkpoints: Checkpoints, state: State, setup: Setup, observing: _Observing
) -> dict[str, Any]:
    """Train to the end and leaves sample and report; gives what the run's last line says."""
    config, began, start = material.config, time.perf_counter(), int(state["counters"]["step"])
    run_record, compiling, leave_report, stop_requested, watch = observing
    settings, guard, baselines = config.train, Guard(warn), {}
    with guard("the counting of baselines"):
        baselines = material.baselines()
    live = LiveLine(
        steps=settings.steps,
        start=start,
        tokens_per_step=settings.batch_size * config.model.context_length,
        flops_per_token=flops_per_token(config.model),
        peak_flops=measure_peak_flops(config.model.dtype),
        guard=guard,
    )
    for line in _opening(material, state, baselines):
        live.say(line)
    times: dict[str, float] = {}

    def look(trains: bool = True) -> None:
        if watch:
            with guard("the page of the run"):
                watch(material, baselines, trains)

    callbacks = _callbacks(material, baselines, live, run_record, guard, times, stop_requested, look)
    try:
        look()
        state, score = loop.train(config, checkpoints, state, callbacks, setup)
    except BaseException:
        look(trains=False)
        raise
    finally:
        live.close()
    params = loop.evaluated_params(config.model, state)
    if material.samples and not stop_requested():
        with guard("the sample"):
            text = settings.prompt + draw_sample(material, params, settings.sample_tokens)
            live.say(f"\n{text}\n")
            if start < settings.steps:
                run_record.write_sample(settings.steps, text)
    times["seconds"] = round(time.perf_counter() - began, 1)
    times["compile_seconds"] = round(compiling.seconds, 1)
    if start == 0:  # Of a run that was stopped, nobody knows the times as a whole.
        run_record.write(settings.steps, **times)
    page = _leave_report(material, params, leave_report, guard, stop_requested)
    if page:
        live.say(f"report: {page}")
    else:
        look(trains=False)
    if not page and (name := stop_requested()):
        warn(
            f"stopped by {name} after the last step: all is saved, the report is left out; "
            f"python -m llm_jax.report {settings.run} makes it"
        )
    live.say(f"saved in {settings.run}; generate more: python -m llm_jax.generate {settings.run}")
    summary = {"run": str(settings.run), "step": settings.steps, **score, "baselines": baselines}
    if before := record.score_before(settings.run, list(score)):
        first, last = (material.task.metrics[0].shown(_bare(each)) for each in (before, score))
        if first and last:
            label = material.task.metrics[0].label
            live.say(f"{label}: {first[0]} before the first step, {last[0]} after the last")
        summary["before"] = before
    return summary | times | {"report": page}


def _opening(material: Materials, state: State, baselines: Mapping[str, float]) -> Iterator[str]:
    """What is said before the first step."""
    config, start = material.config, int(state["counters"]["step"])
    yield f"model: {count_parameters(state['params']):,} parameters, {config.model.vocab_size:,} token ids"
    if baselines:
        shown = ", ".join(f"{name} {nats:.3f}" for name, nats in baselines.items())
        yield f"baselines, nats per token: {shown}"
    if start:
        yield f"continuing {config.train.run} at step {start}"
    elif material.origin:
        yield f"starting from {config.train.init_from}, step {material.origin.step}"


def _leave_report(
    material: Materials,
    params: Tree,
    leave_report: LeaveReport,
    guard: Guard,
    stop_requested: Callable[[], str],
) -> str | None:
    """The report's path; None where it could not be made, or was given up."""
    with guard("the report"):
        if stop_requested():
            return None
        return leave_report(material, params, stop_requested)
    return None


def _callbacks(
    material: Materials,
    baselines: dict[str, float],
    live: LiveLine,
    run_record: record.RunRecord,
    guard: Guard,
    times: dict[str, float],
    stop_requested: Callable[[], str],
    look: Callable[[], None],
) -> loop.Callbacks:
    """What the loop calls; notes "seconds_to_first_step" in `times`."""
    settings = material.config.train

    def on_steps(steps: range, metrics: list[dict[str, Any]]) -> None:
        if not times:
            times["seconds_to_first_step"] = round(seconds_since_start(), 2)
            live.say(f"started after {times['seconds_to_first_step']:.1f} s (mostly compilation)")
        last = metrics[-1]
        speed = live.reach(steps[-1], record.mean_loss([(last["loss_sum"], last["weight"])]))
        for step, each in zip(steps, metrics, strict=True):
            run_record.add_step(step, each, speed if loop.is_logged(settings, step) else None)
        with live.aside():
            look()

    def evaluate(params: Tree) -> dict[str, float]:
        return {f"{_PREFIX}{name}": value for name, value in material.evaluate(params).items()}

    def on_evaluation(step: int, params: Tree, score: dict[str, float]) -> None:
        run_record.write(step, **score)
        beaten = [name for name, baseline in baselines.items() if score[f"{_PREFIX}loss"] < baseline]
        against = f"; beats {beaten[-1] if beaten else 'no baseline'}" if baselines else ""
        live.say(f"step {step}: {material.task.line.format(**_bare(score))}{against}")
        if step < settings.steps and material.samples and not stop_requested():
            with guard("the sample"):
                text = settings.prompt + draw_sample(material, params, min(settings.sample_tokens, 24))
                live.say(f"    {text}".replace("\n", " "))
                run_record.write_sample(step, text)
        look()

    return loop.Callbacks(
        material.batch_at, evaluate, on_steps, on_evaluation, warn, live.aside, stop_requested
    )


def _bare(score: Mapping[str, Any]) -> dict[str, Any]:
    """An evaluation's numbers as its task names them."""
    return {name.removeprefix(_PREFIX): value for name, value in score.items()}
