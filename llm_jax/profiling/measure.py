"""What `profile` measures: the run's own train step compiled, timed, and traced operation by operation."""

import math
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import jax
from jax.experimental.compilation_cache import compilation_cache

from llm_jax.base.devices import first_device, on_one_device
from llm_jax.base.errors import UserError
from llm_jax.config.run import Config
from llm_jax.profiling.program import module_name, read_program
from llm_jax.profiling.trace import Row, read_events, rows, sums
from llm_jax.runs import data
from llm_jax.training.loop import is_logged
from llm_jax.training.state import Setup, placed_state
from llm_jax.training.step import lower_steps, step_arguments
from llm_jax.training.throughput import (
    datasheet_flops,
    flops_per_token,
    measure_bandwidth,
    measure_peak_flops,
    share_of_peak,
)

_TIMED = 5  # dispatches at least, for a median
_NO_GRAPHS = {"xla_gpu_graph_min_graph_size": 2**30}  # operations that a CUDA graph must have at least


class Ceiling(NamedTuple):
    """What the machine could do at most."""

    flops: float | None  # a second; None for an accelerator that is not in the table
    origin: str
    bandwidth: float  # bytes a second, read


class Profile(NamedTuple):
    """All that was measured."""

    device: str
    compile_seconds: float
    seconds: float  # a step, untraced: the median of some dispatches
    traced_seconds: float  # a step, while traced
    steps: int  # traced
    tokens: int  # a step
    flops: int  # a step, of the matrix products
    counted_flops: float | None  # by XLA, each loop's body once
    state_bytes: int
    ceiling: Ceiling
    rows: list[Row]
    files: list[Path]  # of the trace

    @property
    def share(self) -> float | None:
        """The share of the ceiling."""
        return share_of_peak(self.flops, self.seconds, self.ceiling.flops)

    @property
    def state_seconds(self) -> float:
        """A step's lower bound: parameters and optimizer state read and written once, at the bandwidth."""
        return 2 * self.state_bytes / self.ceiling.bandwidth

    @property
    def busy_seconds(self) -> float:
        """Seconds a step of threads, or of the device, in operations."""
        return sum(row.seconds for row in self.rows)


def profile(config: Config, steps: int, folder: Path, report: Callable[[str], None]) -> Profile:
    """Measure the train step of this configuration on its own data; trains nothing that is kept.

    Args:
        config: the run.
        steps: how many steps are traced, rounded up to whole dispatches.
        folder: gets the trace.
        report: gets one line a remark.

    Raises:
        UserError: the folder cannot be written, or the trace has no operation of the train step.
        DataError: the text cannot be used.
    """
    _make(folder)
    material = data.gather(config, report=report)
    config = material.config
    device = first_device()
    ceiling = _ceiling(device, config.model.dtype)
    setup = material.setup(on_one_device())
    compiled, compile_seconds = _compile(config, setup)
    each = min(steps, config.train.steps_per_dispatch)
    dispatches = math.ceil(steps / each)
    state = placed_state(config, setup)
    state_bytes = sum(leaf.nbytes for leaf in jax.tree.leaves(state))

    def timed(program: Any, state: Any, first: int, count: int) -> tuple[Any, list[float]]:
        """Return seconds a step of each of so many dispatches of a compiled step."""
        seconds = []
        for start in range(first * each, (first + count) * each, each):
            batches = [material.batch_at(index) for index in range(start, start + each)]
            measured = [is_logged(config.train, index + 1) for index in range(start, start + each)]
            began = time.perf_counter()
            state, _ = jax.block_until_ready(
                program(state, *step_arguments(config, batches, measured, setup.placement))
            )
            seconds.append((time.perf_counter() - began) / each)
        return state, seconds

    state, _ = timed(compiled, state, 0, 2)  # to warm up
    state, seconds = timed(compiled, state, 2, max(_TIMED, dispatches))
    # A GPU may run a whole step as one graph, of which a trace says nothing: the traced program is in pieces.
    pieces = _compile(config, setup, _NO_GRAPHS)[0] if device.platform == "gpu" else compiled
    state, _ = timed(pieces, state, 0, 1)
    before = _files(folder)
    options = jax.profiler.ProfileOptions()
    options.python_tracer_level = 0  # The host's Python would slow down what is measured.
    with jax.profiler.trace(folder, profiler_options=options):
        _, traced = timed(pieces, state, 2, dispatches)
    files = sorted(_files(folder) - before)
    text = pieces.as_text() or ""
    program = read_program(text)
    module = module_name(text)
    events = [event for file in files if file.suffix == ".pb" for event in read_events(file, program, module)]
    if not events:
        raise UserError(f"the trace in {folder} has no operation of {module}; is another profiler running?")
    costs = compiled.cost_analysis() or {}
    tokens = config.train.batch_size * config.model.context_length
    return Profile(
        device=f"{device.platform} ({device.device_kind})",
        compile_seconds=compile_seconds,
        seconds=median(seconds),
        traced_seconds=sum(traced) / len(traced),
        steps=dispatches * each,
        tokens=tokens,
        flops=tokens * flops_per_token(config.model),
        counted_flops=costs.get("flops"),
        state_bytes=state_bytes,
        ceiling=ceiling,
        rows=rows(events, program, dispatches * each),
        files=files,
    )


def figures(measured: Profile) -> dict[str, Any]:
    """Return a profile as plain values, ready for JSON."""
    parts = [
        {"part": part, "phase": phase, "kind": kind, "seconds": seconds}
        for (part, phase, kind), seconds in sums(measured.rows, "part", "phase", "kind").items()
    ]
    operations = [
        {"name": row.name, "seconds": row.seconds, "runs": row.runs, **row.operation._asdict()}
        for row in measured.rows
    ]
    plain = {name: value for name, value in measured._asdict().items() if name not in ("rows", "files")}
    return plain | {
        "ceiling": measured.ceiling._asdict(),
        "tokens_per_second": measured.tokens / measured.seconds,
        "share_of_peak": measured.share,
        "busy_seconds": measured.busy_seconds,
        "parts": parts,
        "operations": operations,
        "files": [str(file) for file in measured.files],
    }


def _ceiling(device: Any, dtype: str) -> Ceiling:
    if device.platform == "cpu":
        return Ceiling(measure_peak_flops(dtype), f"a {dtype} product measured here", measure_bandwidth())
    flops = datasheet_flops(device.device_kind)
    origin = (
        f"{device.device_kind} is not in the table of datasheets" if flops is None else "bfloat16, datasheet"
    )
    return Ceiling(flops, origin, measure_bandwidth())


def _compile(
    config: Config, setup: Setup, options: dict[str, Any] | None = None
) -> tuple[jax.stages.Compiled, float]:
    """The train step, compiled anew: a program from the cache may carry the line numbers of older code."""
    enabled = jax.config.values["jax_enable_compilation_cache"]
    began = time.perf_counter()
    try:
        jax.config.update("jax_enable_compilation_cache", False)
        compilation_cache.reset_cache()  # It asks for the switch only once.
        return lower_steps(config, setup).compile(options), time.perf_counter() - began
    finally:
        jax.config.update("jax_enable_compilation_cache", enabled)
        compilation_cache.reset_cache()


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--out {folder} must be a folder that can be written: {error.strerror}") from None


def _files(folder: Path) -> set[Path]:
    return {path for path in folder.rglob("*") if path.is_file()}
