"""A run's record on disk: configuration, environment, metrics and samples, as files that anyone can read.

RUN/config.json, RUN/metrics.jsonl and RUN/samples.jsonl (one JSON object a line); the lines of metrics go to
a tracker and to a program's callbacks, too. What it ran on is written by `starts`.
"""

import math
import time
from collections.abc import Callable, Collection, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from llm_jax.base import strict_json
from llm_jax.base.files import made_whole
from llm_jax.base.json_lines import entry_of, left_out, read_lines, scalars, split_lines
from llm_jax.runs.own_parts import Callback
from llm_jax.runs.trackers import Tracker, open_tracker
from llm_jax.training.observers import Beside, Guard


class RunRecord:
    """Appends to a run's files; opened at a step, it forgets what was written there after that step, and
    all at step 0, since the run begins anew. What cannot be written is a warning, once for each file.

    Args:
        run: its directory.
        config: nested values.
        step: the last one that was done.
        warn: gets a line.
        tracker: as `train.tracker`.
        callbacks: get each line of metrics, in threads of their own.
    """

    def __init__(
        self,
        run: Path,
        config: dict[str, Any],
        step: int,
        warn: Callable[[str], None],
        tracker: str = "none",
        callbacks: Sequence[Callback] = (),
    ):
        self._guard = Guard(warn)
        self._since_line: list[tuple[float, float]] = []
        self._metrics, self._samples = (run / name for name in ("metrics.jsonl", "samples.jsonl"))
        self._cut_off: set[Path] = set()  # files whose last line may lack its end
        with self._guard("config.json"):
            (run / "config.json").write_text(strict_json.dumps(config, indent=2) + "\n", encoding="utf-8")
        for path in (self._metrics, self._samples):
            with self._guard(path.name):
                forget_after(path, step, warn)
        self._callbacks = [(call, Beside(f"the callback {_name(call)}", warn)) for call in callbacks]
        self._began, self._before = time.monotonic(), elapsed_before(self._metrics)
        self._tracker: tuple[str, Tracker | None] = tracker, None
        with self._guard(tracker):
            self._tracker = tracker, open_tracker(tracker, run, step, config, warn)

    def write(self, step: int, **values: Any) -> None:
        """Write a line of metrics.jsonl: numbers, and under names that end in "_norms" dicts of numbers and
        of lists of them; one that is not finite is written as null, and left out of trackers. Each has the
        "elapsed_seconds" of all starts up to then, unless an earlier one has left no time.
        """
        values = strict_json.finite(values)
        elapsed = {}
        if self._before is not None:
            elapsed["elapsed_seconds"] = round(self._before + time.monotonic() - self._began, 2)
        self._append(self._metrics, {"step": step, **values, **elapsed})
        name, tracker = self._tracker
        if tracker is not None:
            with self._guard(name):
                tracker.write(step, scalars(values))
        for call, beside in self._callbacks:
            beside(partial(call, step, dict(values)))

    def close(self) -> None:
        """Let tracker and callbacks come to their end."""
        name, tracker = self._tracker
        if tracker is not None:
            with self._guard(name):
                tracker.close()
        for _, beside in self._callbacks:
            beside.close()

    def add_step(self, step: int, metrics: dict[str, Any], speed: dict[str, float] | None) -> None:
        """Take in a step's metrics; with a speed, writes a line with the mean loss since the last one and of
        how many steps it is.
        """
        self._since_line.append((metrics["loss_sum"], metrics["weight"]))
        if speed is None:
            return
        others = {name: value for name, value in metrics.items() if name not in ("loss_sum", "weight")}
        mean = {"train_loss": mean_loss(self._since_line), "averaged_steps": len(self._since_line)}
        self._since_line.clear()
        self.write(step, **mean, **others, **speed)

    def write_sample(self, step: int, text: str) -> None:
        """Write one line of samples.jsonl: the step and the text, its prompt included."""
        self._append(self._samples, {"step": step, "text": text})

    def _append(self, path: Path, entry: dict[str, Any]) -> None:
        """Adds a line in one write, opened anew each time: so a file that was full or gone is written again
        once it can be.
        """
        line = strict_json.dumps(entry, ensure_ascii=False).encode("utf-8", "replace") + b"\n"
        with self._guard(path.name), path.open("ab", buffering=0) as file:
            whole = b"\n" + line if path in self._cut_off else line
            self._cut_off.add(path)
            if file.write(whole) != len(whole):
                raise OSError("No space left on device")
            self._cut_off.discard(path)


def _name(call: Any) -> str:
    return getattr(call, "__name__", None) or type(call).__name__


def mean_loss(steps: Sequence[tuple[float, float]]) -> float:
    """Return nats per target over steps given as (sum, weight); NaN where there is no target."""
    loss_sum, weight = (sum(column) for column in zip(*steps, strict=True))
    return loss_sum / weight if weight else math.nan


def score_before(run: Path, names: Collection[str]) -> dict[str, float] | None:
    """Return these numbers of the evaluation before a run's first step, where there was one and they were
    finite.
    """
    first: dict[str, Any] = next(iter(read_lines(run / "metrics.jsonl")), {"step": None})
    found = {name: first[name] for name in names if first.get(name) is not None}
    return found if first["step"] == 0 and found.keys() == set(names) else None


def elapsed_before(metrics: Path) -> float | None:
    """Return the seconds that a run's earlier starts took, up to the last line of theirs; None where that
    says none.
    """
    lines = read_lines(metrics)
    return lines[-1].get("elapsed_seconds") if lines else 0.0


def forget_after(path: Path, step: int, report: Callable[[str], None]) -> None:
    """Take the lines of later steps, and damaged ones, out of a file of JSON lines; at step 0 all of them.

    Args:
        path: the file, which need not be there.
        step: the last one to be kept.
        report: gets one line where damaged ones were taken out.
    """
    try:
        lines = split_lines(path.read_bytes())
    except FileNotFoundError:
        return
    steps = [None if (entry := entry_of(line)) is None else entry["step"] for line in lines] if step else []
    if damaged := steps.count(None):
        report(f"{left_out(damaged)} of {path}")
    kept = [line for line, of in zip(lines, steps, strict=False) if of is not None and of <= step]
    with made_whole(path) as part:
        part.write_bytes(b"".join(line + b"\n" for line in kept))
