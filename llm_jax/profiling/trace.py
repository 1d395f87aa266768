"""What a profiler's trace says of the compiled train step: the time of each operation, and sums of them."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax

from llm_jax.profiling.program import Operation


class Event(NamedTuple):
    """Time of a thread, or of a device, in one operation."""

    name: str
    seconds: float
    runs: int = 1  # 0 for what other threads add to a run that is counted already


class Row(NamedTuple):
    """What one operation took in the trace."""

    name: str
    operation: Operation
    seconds: float  # a step
    runs: float  # a step


def read_events(file: Path, program: Mapping[str, Operation], module: str) -> list[Event]:
    """Return all time that an .xplane.pb file has in operations of the program that the trace calls
    `module`.
    """
    planes = list(jax.profiler.ProfileData.from_file(str(file)).planes)
    devices = [plane for plane in planes if plane.name.startswith("/device:")]
    on_device = [event for plane in devices for event in _device_events(plane, module)]
    hosts = [plane for plane in planes if plane not in devices]
    events = on_device or [event for plane in hosts for event in host_events(_marks(plane, module), program)]
    return [event for event in events if event.name in program]


def _device_events(plane: Any, module: str) -> Iterator[Event]:
    for line in plane.lines:
        for event in line.events:
            facts = dict(event.stats)
            if "hlo_op" in facts and facts.get("hlo_module", module) == module:
                yield Event(str(facts["hlo_op"]), event.duration_ns / 1e9)
            elif line.name == "XLA Ops":  # A TPU's, each named by its whole instruction.
                yield Event(event.name.lstrip("%").split(" ")[0], event.duration_ns / 1e9)


class Mark(NamedTuple):
    """Something that a thread of the host noted."""

    thread: str
    start: float  # ns
    duration: float  # ns
    name: str
    operation: str  # "" for anything else
    task: int  # the task that is handed on or begun, or 0


def _marks(plane: Any, module: str) -> Iterator[Mark]:
    for line in plane.lines:
        for event in line.events:
            facts = dict(event.stats)
            ours = "hlo_op" in facts and facts.get("hlo_module") == module
            name, operation = event.name, str(facts["hlo_op"]) if ours else ""
            if ours or name.startswith(("ThreadpoolListener::", "ThunkExecutor::")):
                task = facts.get("_c") if name.endswith("StartRegion") else facts.get("_p")
                yield Mark(line.name, event.start_ns, event.duration_ns, name, operation, task or 0)


def host_events(marks: Iterable[Mark], program: Mapping[str, Operation]) -> Iterator[Event]:
    """Return time of a CPU's threads in operations, from what XLA's executor and its thread pool note.

    An operation that is cut up runs one piece itself and hands others to the pool ("Record"); another thread
    takes one up ("StartRegion"), then often goes straight on with the next operation. So a piece ends where
    the next operation in that thread begins, or at "StopRegion".
    """
    owners: dict[int, str] = {}  # task -> operation
    pieces: dict[str, tuple[str, float]] = {}  # thread -> the piece that it is in, and since when
    running: dict[str, list[tuple[float, str]]] = defaultdict(list)  # thread -> operations open, by their end
    for mark in sorted(marks, key=lambda mark: (mark.start, -mark.duration)):
        opened = running[mark.thread]
        while opened and opened[-1][0] <= mark.start:
            opened.pop()
        if mark.name.endswith("::Record"):
            owners[mark.task] = opened[-1][1] if opened else pieces.get(mark.thread, ("", 0))[0]
            continue
        name, since = pieces.pop(mark.thread, ("", 0.0))
        if name:
            yield Event(name, (mark.start - since) / 1e9, runs=0)
        if mark.name.endswith("::StartRegion") and owners.get(mark.task) in program:
            pieces[mark.thread] = (owners[mark.task], mark.start)
        elif mark.operation:
            opened.append((mark.start + mark.duration, mark.operation))
            yield Event(mark.operation, mark.duration / 1e9)


def rows(events: Iterable[Event], program: Mapping[str, Operation], steps: int) -> list[Row]:
    """Return what each operation took a step, the longest first."""
    seconds: dict[str, float] = defaultdict(float)
    counts: Counter[str] = Counter()
    for name, taken, runs in events:
        seconds[name] += taken
        counts[name] += runs
    found = [Row(name, program[name], seconds[name] / steps, counts[name] / steps) for name in seconds]
    return sorted(found, key=lambda row: -row.seconds)


def sums(found: Iterable[Row], *fields: str) -> dict[tuple[str, ...], float]:
    """Return seconds a step by these fields of `Operation`, the longest first."""
    total: dict[tuple[str, ...], float] = defaultdict(float)
    for row in found:
        total[tuple(getattr(row.operation, field) for field in fields)] += row.seconds
    return dict(sorted(total.items(), key=lambda item: -item[1]))
