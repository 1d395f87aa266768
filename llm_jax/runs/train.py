"""A whole run, wired: data, state, steps, record, sample and report."""

import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from functools import partial
from typing import Any, NamedTuple

from llm_jax.base.compilation import CompileTime, compile_time
from llm_jax.base.devices import on_one_device
from llm_jax.base.environment import versions
from llm_jax.base.errors import InterruptedAndSaved
from llm_jax.base.process import seconds_since_start
from llm_jax.base.terminal import say
from llm_jax.base.tree import State, Tree
from llm_jax.checkpoints.reader import read_about
from llm_jax.checkpoints.step_files import checkpoint_directory
from llm_jax.checkpoints.writer import Checkpoints
from llm_jax.config.load import to_dict
from llm_jax.config.run import Config
from llm_jax.evaluation.baselines import beaten, why_not_beaten
from llm_jax.runs import continuing, data, own_parts, record, starts
from llm_jax.runs.best import Best, best_of, patience_line, rising_line
from llm_jax.runs.data import Materials
from llm_jax.runs.init_from import first_state
from llm_jax.runs.own_parts import Program
from llm_jax.runs.progress import LiveLine
from llm_jax.runs.samples import check_prompt, draw_sample
from llm_jax.runs.trackers import require_tracker
from llm_jax.training import loop
from llm_jax.training.interrupt import BEFORE_FIRST_STEP, leave_unsaved, stop_requests, stopped
from llm_jax.training.observers import Guard, warn
from llm_jax.training.state import Setup
from llm_jax.training.step import lower_steps
from llm_jax.training.throughput import flops_per_token, measure_peak_flops

_PREFIX = "validation_"  # of an evaluation's numbers in metrics.jsonl
_GLANCE = 0.05  # seconds between looks for a signal


# Makes the report of a run that has ended from its materials, parameters and the function that names the
# signal which asked to stop; gives the page's path, None where it was given up.
LeaveReport = Callable[[Materials, Tree, Callable[[], str]], str | None]


def run(
    config: Config,
    leave_report: LeaveReport,
    wanted_seconds: float | None = None,
    *,
    agreed: bool = False,
    longer: bool = False,
    program: Program = Program(),
) -> dict[str, Any]:
    """Begin a run, or go on with the one in its directory, until it is over.

    Args:
        config: the run.
        leave_report: called at the end.
        wanted_seconds: the time it was planned for; at the end it stands beside the time it took.
        agreed: whether a run that goes on may have other settings for the steps to come.
        longer: whether it may have more steps than before.
        program: what asks for the run.

    Returns:
        What sums the run up, as plain values.

    Raises:
        UserError: the directory is in use, or holds a run of another configuration or with other own parts;
            the prompt is none, a part is not as it must be, or the tracker is not installed.
        DataError: the text cannot be used.
        CheckpointError: the directory cannot be written, or holds a run on other data or nothing undamaged.
        InterruptedAndSaved: a signal came before the last step.
    """
    began, own = time.perf_counter() if program.goes_on else None, program.own
    material = _gather(config, program)
    config, setup, about = material.config, material.setup(on_one_device()), _about(material)
    directory = checkpoint_directory(config.train.run)
    with (
        stop_requests(ends_process=not program.goes_on) as stop_requested,
        Checkpoints(directory, keep=config.train.keep, about=about, report=say) as checkpoints,
        compile_time() as compiling,
        ThreadPoolExecutor(1) as worker,
    ):
        latest = checkpoints.latest_step()
        if latest is not None:
            known = read_about(directory)
            fingerprint = material.store.fingerprint
            continuing.require_same_run(known, config, fingerprint, agreed=agreed, longer=longer)
            own_parts.require_same_parts(known, own)
        # Beside the making and saving of the first state; nothing else is refused from here on.
        compiled = lambda: lower_steps(config, setup).compile()  # noqa: E731
        over = latest is not None and loop.is_over(config.train, latest, checkpoints)
        ready = None if over else worker.submit(compiled)
        begin = partial(first_state, origin=material.origin, setup=setup)
        state = loop.start_state(config, checkpoints, begin, setup)
        step, guard = int(state["counters"]["step"]), Guard(warn)
        if latest is not None:
            material = _with_history(material, state["counters"])
            about["changes"] += material.history
        with guard(continuing.CHANGES):
            continuing.write_history(config.train.run, material.history)
        if not loop.is_over(config.train, step, checkpoints):
            with guard(starts.FILE):
                starts.note_start(config.train.run, step)
        watching = config.train.tracker, program.callbacks
        run_record = record.RunRecord(config.train.run, to_dict(config), step, warn, *watching)
        if ready:
            _wait_for(ready, stop_requested, program)
        observing = _Observing(run_record, compiling, leave_report, stop_requested, began)
        try:
            summary = _train(material, checkpoints, state, setup, observing)
        finally:
            run_record.close()
    if wanted_seconds is not None:
        took = round(seconds_since_start(), 1)
        say(f"took {took:.1f} s of the {wanted_seconds:.0f} s that you gave ({took / wanted_seconds:.1%})")
        summary["time"] = {"wanted": wanted_seconds, "took": took}
    return summary


def _gather(config: Config, program: Program) -> Materials:
    """The run's materials, with what the program hands in; all that can be refused is looked at."""
    require_tracker(config.train.tracker)
    say(f"Data: {config.data.corpus} (cached in {config.data.prepared}/)")
    material = data.gather(config, report=say)._replace(own=program.own)
    check_prompt(material)
    program.own.check(material.config, material.task)
    return material


def _wait_for(compiled: Future[Any], stop_requested: Callable[[], str], program: Program) -> None:
    """Wait for the compiled step, unless a signal comes."""
    while not (wait([compiled], _GLANCE).done or stop_requested()):
        pass
    if name := stop_requested():
        if program.goes_on:
            raise InterruptedAndSaved(stopped(name, BEFORE_FIRST_STEP))
        leave_unsaved(stopped(name, BEFORE_FIRST_STEP), name)
    compiled.result()


def _about(material: Materials) -> dict[str, Any]:
    """What every checkpoint of a run says of itself."""
    return {
        "config": to_dict(material.config),
        "tokenizer": material.store.tokenizer.to_dict(),
        "data_fingerprint": material.store.fingerprint,
        "labels": list(material.task.labels(material.config, material.store)),
        "versions": versions(),
        "changes": [],  # filled before anything is saved that comes after them
        "own_parts": material.own.names(),
        **material.chat(),
    } | (material.origin.about() if material.origin else {})


class _Observing(NamedTuple):
    """What records a run, and what asks it to stop."""

    run_record: record.RunRecord
    compiling: CompileTime
    leave_report: LeaveReport
    stop_requested: Callable[[], str]
    began: float | None = None  # when a program asked for it, by `time.perf_counter`

    def seconds(self) -> float:
        """Since the command, or the program's call, began."""
        return seconds_since_start() if self.began is None else time.perf_counter() - self.began


def _with_history(material: Materials, counters: Tree) -> Materials:
    """The materials with what changed up to now; says what did since the checkpoint of the state."""
    run, step = material.config.train.run, int(counters["step"])
    about = read_about(checkpoint_directory(run), step)
    material, lines = continuing.went_on(material, about, int(counters["batch"]))
    for line in lines:
        say(line)
    return material


def _train(
    material: Materials,
    checkpoints: Checkpoints,
    state: State,
    setup: Setup,
    observing: "_Observing",
) -> dict[str, Any]:
    """Train to the end and leaves sample and report; gives what the run's last line says."""
    config, began, start = material.config, time.perf_counter(), int(state["counters"]["step"])
    run_record, compiling, leave_report, stop_requested, _ = observing
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
    for line in (*starts.opening(material, state, baselines), patience_line(settings, start, checkpoints)):
        if line:
            live.say(line)
    times: dict[str, float] = {}
    rising = partial(rising_line, checkpoints)
    callbacks = _callbacks(
        material, baselines, live, run_record, guard, times, stop_requested, rising, observing.seconds
    )
    try:
        state, score = loop.train(config, checkpoints, state, callbacks, setup)
    finally:
        live.close()
    done = int(state["counters"]["step"])
    if done > start and (line := patience_line(settings, done, checkpoints)):
        live.say(line)
    best = Best(done, loop.evaluated_params(config.model, state), score[f"{_PREFIX}loss"])
    with guard("the best checkpoint"):
        best = best_of(best, settings, checkpoints, live.say)
    if material.samples and not stop_requested():
        with guard("the sample"):
            text = settings.prompt + draw_sample(material, best.params, settings.sample_tokens)
            live.say(f"\n{text}\n")
            if start < done:
                run_record.write_sample(best.step, text)
    tokens = len(material.store.tokens("train"))
    epochs = best.step * settings.batch_size * config.model.context_length / max(1, tokens)
    if why := why_not_beaten(best.loss, baselines, tokens, epochs):
        live.say(why)
    times["seconds"] = round(time.perf_counter() - began, 1)
    times["compile_seconds"] = round(compiling.seconds, 1)
    if start == 0:  # Of a run that was stopped, nobody knows the times as a whole.
        run_record.write(done, **times)
    page = _leave_report(material, best.params, leave_report, guard, stop_requested)
    if page:
        live.say(f"report: {page}")
    elif name := stop_requested():
        warn(
            stopped(name, " after the last step. All is saved; the report is left out. To make it: ")
            + f"llm-jax report {settings.run}"
        )
    live.say(f"Saved in {settings.run}. Generate more: llm-jax generate {settings.run}")
    summary = {"run": str(settings.run), "step": done, "best_step": best.step, **score}
    if before := record.score_before(settings.run, list(score)):
        first, last = (material.task.metrics[0].shown(_bare(each)) for each in (before, score))
        if first and last:
            label = material.task.metrics[0].label
            live.say(f"{label}: {first[0]} before the first step, {last[0]} after the last")
        summary["before"] = before
    return summary | {"baselines": baselines} | times | {"report": page}


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
    rising: Callable[[], str],
    seconds: Callable[[], float] = seconds_since_start,
) -> loop.Callbacks:
    """What the loop calls; notes "seconds_to_first_step" in `times`."""
    settings = material.config.train

    def on_steps(steps: range, metrics: list[dict[str, Any]]) -> None:
        if not times:
            times["seconds_to_first_step"] = round(seconds(), 2)
            live.say(f"started after {times['seconds_to_first_step']:.1f} s (mostly compilation)")
        last = metrics[-1]
        speed = live.reach(steps[-1], record.mean_loss([(last["loss_sum"], last["weight"])]))
        for step, each in zip(steps, metrics, strict=True):
            run_record.add_step(step, each, speed if loop.is_logged(settings, step) else None)

    def evaluate(params: Tree) -> dict[str, float]:
        return {f"{_PREFIX}{name}": value for name, value in material.evaluate(params).items()}

    def on_evaluation(step: int, params: Tree, score: dict[str, float]) -> None:
        run_record.write(step, **score)
        against = f"; {beaten(score[f'{_PREFIX}loss'], baselines)}" if baselines else ""
        live.say(f"step {step}: {material.task.line.format(**_bare(score))}{against}")
        if line := rising():
            live.say(line)
        if step < settings.steps and material.samples and not stop_requested():
            with guard("the sample"):
                text = settings.prompt + draw_sample(material, params, min(settings.sample_tokens, 24))
                live.say(f"    {text}".replace("\n", " "))
                run_record.write_sample(step, text)

    return loop.Callbacks(
        material.batch_at, evaluate, on_steps, on_evaluation, warn, live.aside, stop_requested
    )


def _bare(score: Mapping[str, Any]) -> dict[str, Any]:
    """An evaluation's numbers as its task names them."""
    return {name.removeprefix(_PREFIX): value for name, value in score.items()}
