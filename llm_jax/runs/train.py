"""A whole run, wired: data, state, steps, record, sample and report."""

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from functools import partial
from typing import Any

from llm_jax.base.compilation import compile_time
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
from llm_jax.runs import continuing, data, own_parts, record, starts
from llm_jax.runs.data import Materials
from llm_jax.runs.init_from import first_state
from llm_jax.runs.observer import Around, LeaveReport, Observer, Watch
from llm_jax.runs.own_parts import Program
from llm_jax.runs.samples import check_prompt
from llm_jax.runs.trackers import require_tracker
from llm_jax.training import loop
from llm_jax.training.interrupt import BEFORE_FIRST_STEP, leave_unsaved, stop_requests, stopped
from llm_jax.training.observers import Guard, warn
from llm_jax.training.state import Setup
from llm_jax.training.step import lower_steps

_GLANCE = 0.05  # seconds between looks for a signal


def run(
    config: Config,
    leave_report: LeaveReport,
    wanted_seconds: float | None = None,
    *,
    agreed: bool = False,
    longer: bool = False,
    program: Program = Program(),
    watch: Watch | None = None,
) -> dict[str, Any]:
    """Begin a run, or go on with the one in its directory, until it is over.

    Args:
        config: the run.
        leave_report: called at the end.
        wanted_seconds: the time it was planned for; at the end it stands beside the time it took.
        agreed: whether a run that goes on may have other settings for the steps to come.
        longer: whether it may have more steps than before.
        program: what asks for the run.
        watch: called after steps and evaluations.

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
        if latest is not None:
            material = _with_history(material, state["counters"])
            about["changes"] += material.history
        step = int(state["counters"]["step"])
        begins = not loop.is_over(config.train, step, checkpoints)
        run_record = _open_record(material, step, program, begins=begins)
        if ready:
            _wait_for(ready, stop_requested, program)
        around = Around(run_record, compiling, leave_report, stop_requested, watch, began)
        try:
            summary = _train(material, checkpoints, state, setup, around)
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


def _open_record(material: Materials, step: int, program: Program, *, begins: bool) -> record.RunRecord:
    """The run's record after a step, with what changed and, where steps follow, what they run on."""
    settings, guard = material.config.train, Guard(warn)
    with guard(continuing.CHANGES):
        continuing.write_history(settings.run, material.history)
    if begins:
        with guard(starts.FILE):
            starts.note_start(settings.run, step)
    watching = settings.tracker, program.callbacks
    return record.RunRecord(settings.run, to_dict(material.config), step, warn, *watching)


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
        "factors": material.store.factors.to_list(),
        "versions": versions(),
        "changes": [],  # filled before anything is saved that comes after them
        "own_parts": material.own.names(),
        **material.chat(),
    } | (material.origin.about() if material.origin else {})


def _with_history(material: Materials, counters: Tree) -> Materials:
    """The materials with what changed up to now; says what did since the checkpoint of the state."""
    run, step = material.config.train.run, int(counters["step"])
    about = read_about(checkpoint_directory(run), step)
    material, lines = continuing.went_on(material, about, int(counters["batch"]))
    for line in lines:
        say(line)
    return material


def _train(
    material: Materials, checkpoints: Checkpoints, state: State, setup: Setup, around: Around
) -> dict[str, Any]:
    """Train to the end, and leave sample and report; give what sums the run up."""
    observer = Observer(material, checkpoints, state, around)
    try:
        observer.look()
        state, score = loop.train(material.config, checkpoints, state, observer.callbacks(), setup)
    except BaseException:
        observer.look(trains=False)
        raise
    finally:
        observer.close()
    return observer.end(state, score)
