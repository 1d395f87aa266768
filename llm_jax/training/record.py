"""A run's record on disk: configuration, environment, metrics and samples, as files that anyone can read.

RUN/config.json, RUN/metrics.jsonl and RUN/samples.jsonl (one JSON object a line), RUN/tensorboard (when
installed). What it ran on is written by `starts`.
"""

import importlib.metadata
import json
import math
import os
import platform
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TextIO

import jax

from llm_jax import strict_json
from llm_jax.training.starts import surroundings

PACKAGES = (
    "llm-jax",
    "jax",
    "jaxlib",
    "flax",
    "optax",
    "orbax-checkpoint",
    "numpy",
    "tiktoken",
    "tokenizers",
    "grain",
)


def versions() -> dict[str, str]:
    """Installed versions of the packages that decide a run's numbers."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def environment() -> dict[str, Any]:
    """What a run ran on: versions, devices, processors, threads, variables, command and git state."""
    return {
        **surroundings(),
        "versions": versions(),
        "platform": platform.platform(),
        "processors": os.cpu_count(),
        "devices": [device.device_kind for device in jax.devices()],
        "command": sys.argv,
        "git": _git_state(),
    }


def _git_state() -> dict[str, Any] | None:
    def git(*words: str) -> str:
        return subprocess.run(
            ["git", *words], cwd=Path(__file__).parent, capture_output=True, text=True, check=True
        ).stdout.strip()

    try:
        return {"commit": git("rev-parse", "HEAD"), "modified": git("status", "--porcelain").splitlines()}
    except (OSError, subprocess.CalledProcessError):
        return None


class RunRecord:
    """Appends to a run's files; opened at a step, it forgets what was written there after that step, and
    all at step 0, since the run begins anew.
    """

    def __init__(self, run: Path, config: dict[str, Any], step: int):
        self._run = run
        (run / "config.json").write_text(strict_json.dumps(config, indent=2) + "\n")
        self._metrics, self._samples = (
            _open_lines(run / name, step) for name in ("metrics.jsonl", "samples.jsonl")
        )
        self._tensorboard = _tensorboard_writer(run / "tensorboard")
        self._since_line: list[tuple[float, float]] = []

    def write(self, step: int, **values: Any) -> None:
        """One line of metrics.jsonl: numbers, and nested lists and dicts of them; one that is not finite is
        written as null.
        """
        self._metrics.write(strict_json.dumps({"step": step, **values}) + "\n")
        self._metrics.flush()
        if self._tensorboard is not None:
            for name, value in scalars(values):
                self._tensorboard.add_scalar(name, value, step)

    def add_step(self, step: int, metrics: dict[str, Any], speed: dict[str, float] | None) -> None:
        """Takes in a step's metrics; with a speed, writes a line with the mean loss since the last one
        and of how many steps it is.
        """
        self._since_line.append((metrics["loss_sum"], metrics["weight"]))
        if speed is None:
            return
        others = {name: value for name, value in metrics.items() if name not in ("loss_sum", "weight")}
        mean = {"train_loss": mean_loss(self._since_line), "averaged_steps": len(self._since_line)}
        self.write(step, **mean, **others, **speed)
        self._since_line.clear()

    def write_sample(self, step: int, text: str) -> None:
        """One line of samples.jsonl: the step and the text, its prompt included."""
        self._samples.write(strict_json.dumps({"step": step, "text": text}, ensure_ascii=False) + "\n")
        self._samples.flush()

    def __enter__(self) -> "RunRecord":
        return self

    def __exit__(self, *_: object) -> None:
        self._metrics.close()
        self._samples.close()
        if self._tensorboard is not None:
            self._tensorboard.close()


def mean_loss(steps: Sequence[tuple[float, float]]) -> float:
    """Nats per target over steps given as (sum, weight); NaN where there is no target."""
    loss_sum, weight = (sum(column) for column in zip(*steps, strict=True))
    return loss_sum / weight if weight else math.nan


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The entries of a run's file of JSON lines, in its order; none where there is no file."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return []
    return [json.loads(line) for line in lines if _step_of(line) < math.inf]


def score_before(run: Path) -> dict[str, Any] | None:
    """The evaluation before a run's first step, where there was one and its numbers were finite."""
    first = next(iter(read_lines(run / "metrics.jsonl")), None)
    if first is None or first["step"] != 0 or None in first.values():
        return None
    return first


def _open_lines(path: Path, step: int) -> TextIO:
    """A file of JSON lines, open at its end, without its lines of later steps; at step 0 without any."""
    if path.exists():
        lines = path.read_text(encoding="utf-8").splitlines()
        kept = [line for line in lines if step and _step_of(line) <= step]
        temporary = path.with_suffix(".tmp")
        temporary.write_text("".join(line + "\n" for line in kept), encoding="utf-8")
        temporary.replace(path)
    return path.open("a", encoding="utf-8")


def scalars(values: dict[str, Any] | list[Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    """Every number in nested values under its path, as 'grad_norms/blocks/0'."""
    for name, value in values.items() if isinstance(values, dict) else enumerate(values):
        if isinstance(value, dict | list):
            yield from scalars(value, f"{prefix}{name}/")
        else:
            yield f"{prefix}{name}", value


def _step_of(line: str) -> float:
    try:
        return json.loads(line)["step"]
    except (ValueError, KeyError, TypeError):
        return math.inf  # A line cut off by a kill belongs to no step and is dropped.


def _tensorboard_writer(directory: Path) -> Any:
    try:
        from tensorboardX import SummaryWriter  # pyright: ignore[reportMissingImports] - optional
    except ImportError:
        return None
    return SummaryWriter(str(directory))
