"""The runs in a folder, read off their small files: no model is loaded, and JAX is not imported."""

import os
from pathlib import Path
from typing import NamedTuple

from llm_jax.base.errors import UserError
from llm_jax.base.json_lines import read_lines, read_object
from llm_jax.checkpoints.step_files import checkpoint_directory, saved_steps

_SCORE = "validation_loss"


class RunSummary(NamedTuple):
    """A run as a line of a table."""

    run: str  # its path
    step: int  # the last one that is saved
    steps: int | None  # as many as it shall have; None where that cannot be read
    loss: float | None  # nats per token over the whole validation split, at the last evaluation
    best: float | None  # the lowest of them
    best_step: int | None
    bytes: int  # on disk


def list_runs(folder: Path) -> list[RunSummary]:
    """Return the runs directly in a folder, or the folder itself where it is one, by name.

    Raises:
        UserError: the folder cannot be read.
    """
    try:
        inside = sorted(path for path in folder.iterdir() if path.is_dir())
    except OSError as error:
        raise UserError(
            f"{folder} must be a folder with runs: {error.strerror}; llm-jax train makes runs"
        ) from None
    runs = [folder] if _is_run(folder) else [path for path in inside if _is_run(path)]
    return [_summary(run) for run in runs]


def _is_run(path: Path) -> bool:
    return (path / "config.json").is_file() and checkpoint_directory(path).is_dir()


def _summary(run: Path) -> RunSummary:
    scored = [line for line in read_lines(run / "metrics.jsonl") if line.get(_SCORE) is not None]
    best = min(scored, key=lambda line: line[_SCORE], default=None)
    train = read_object(run / "config.json").get("train")
    steps = train.get("steps") if isinstance(train, dict) else None
    return RunSummary(
        str(run),
        max(saved_steps(checkpoint_directory(run)), default=0),
        steps if isinstance(steps, int) else None,
        scored[-1][_SCORE] if scored else None,
        best[_SCORE] if best else None,
        best["step"] if best else None,
        _size(run),
    )


def _size(folder: Path) -> int:
    """Bytes of all files in a folder and below; what goes while one looks counts nothing."""
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.lstat(os.path.join(parent, name)).st_size
            except OSError:
                continue
    return total
