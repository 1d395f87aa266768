"""A run's record on disk: configuration, environment, metrics and samples, as files that anyone can read.

RUN/config.json, RUN/environment.json, RUN/metrics.jsonl (one JSON object a line), RUN/samples.txt,
RUN/tensorboard (when installed).
"""

import importlib.metadata
import json
import math
import os
import platform
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax

from llm_jax.config import Config
from llm_jax.errors import CheckpointError, UserError
from llm_jax.settings import config_from_dict, differences

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
    """What a run ran on: versions, devices, processor count, command and git state."""
    return {
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


def refuse_other_run(recorded: Mapping[str, Any], config: Config, data_fingerprint: str) -> None:
    """Refuses to go on with a run that its checkpoint says is another one.

    Raises:
        CheckpointError: it was trained on other data.
        UserError: it has another configuration; the message has the differences.
    """
    run = config.train.run
    if recorded["data_fingerprint"] != data_fingerprint:
        raise CheckpointError(f"{run} holds a run on other data; give another --train.run")
    changes = differences(config_from_dict(recorded["config"], str(run)), config)
    if changes := [line for line in changes if not line.startswith("train.run:")]:
        raise UserError(
            f"{run} holds a run of another configuration ({'; '.join(changes)}); give another --train.run"
        )


class RunRecord:
    """Appends to a run's files; opened at a step, it forgets what was written there after that step."""

    def __init__(self, run: Path, config: dict[str, Any], step: int):
        self._run = run
        (run / "config.json").write_text(json.dumps(config, indent=2) + "\n")
        (run / "environment.json").write_text(json.dumps(environment(), indent=2) + "\n")
        self._forget_after(step)
        self._metrics = (run / "metrics.jsonl").open("a", encoding="utf-8")
        self._tensorboard = _tensorboard_writer(run / "tensorboard")
        self._since_line: list[tuple[float, float]] = []

    def _forget_after(self, step: int) -> None:
        path = self._run / "metrics.jsonl"
        if not path.exists():
            return
        kept = [line for line in path.read_text(encoding="utf-8").splitlines() if _step_of(line) <= step]
        temporary = path.with_suffix(".tmp")
        temporary.write_text("".join(line + "\n" for line in kept), encoding="utf-8")
        temporary.replace(path)

    def write(self, step: int, **values: float) -> None:
        """One line of metrics.jsonl; a number that is not finite is written as null."""
        finite = {name: value if math.isfinite(value) else None for name, value in values.items()}
        self._metrics.write(json.dumps({"step": step, **finite}) + "\n")
        self._metrics.flush()
        if self._tensorboard is not None:
            for name, value in values.items():
                self._tensorboard.add_scalar(name, value, step)

    def add_step(self, step: int, metrics: dict[str, float], speed: dict[str, float] | None) -> None:
        """Takes in a step's metrics; with a speed, writes a line with the mean loss since the last one."""
        self._since_line.append((metrics["loss_sum"], metrics["weight"]))
        if speed is None:
            return
        loss_sum, weight = (sum(column) for column in zip(*self._since_line, strict=True))
        norms = {name: metrics[name] for name in ("grad_norm", "update_norm", "skipped")}
        self.write(step, train_loss=loss_sum / weight if weight else math.nan, **norms, **speed)
        self._since_line.clear()

    def write_sample(self, step: int, text: str) -> None:
        """A sample under a heading with its step."""
        with (self._run / "samples.txt").open("a", encoding="utf-8") as file:
            file.write(f"--- step {step}\n{text}\n")

    def close(self) -> None:
        self._metrics.close()
        if self._tensorboard is not None:
            self._tensorboard.close()


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
