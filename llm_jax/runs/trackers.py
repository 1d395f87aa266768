"""Where a run's numbers go besides metrics.jsonl (`train.tracker`): TensorBoard, Weights & Biases or Trackio.

None is on by itself, and none talks to a network: Weights & Biases writes offline into RUN/wandb, which
`wandb sync` uploads, and Trackio into its own folder (TRACKIO_DIR). Both are called beside the run, so that
neither can keep it waiting.
"""

import importlib.util
import uuid
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Protocol

from llm_jax.base.errors import UserError
from llm_jax.runs.tensorboard import open_tensorboard
from llm_jax.training.observers import Beside

PACKAGES = {"tensorboard": "tensorboardX", "wandb": "wandb", "trackio": "trackio"}
_PROJECT = "llm-jax"


class Tracker(Protocol):
    """What takes numbers in."""

    def write(self, step: int, numbers: Iterable[tuple[str, float | None]]) -> None:
        """Add the numbers of a step; one that is None was not measured and is left out."""
        ...

    def close(self) -> None:
        """Let it end."""
        ...


def require_tracker(name: str) -> None:
    """Raise UserError where the tracker's package is not installed."""
    if name != "none" and importlib.util.find_spec(PACKAGES[name]) is None:
        raise UserError(
            f"train.tracker = {name} needs the package {PACKAGES[name]}: "
            f'pip install "llm-jax[{name}]", or leave it out'
        )


def open_tracker(
    name: str, run: Path, step: int, config: dict[str, Any], warn: Callable[[str], None]
) -> Tracker | None:
    """Open the tracker of this name for a run that goes on after a step; None for "none".

    Args:
        name: a key of `PACKAGES`, or "none".
        run: the run's directory.
        step: 0 where it begins; what is recorded of later steps stays in all but TensorBoard, and a run that
            goes on records them again, with the same numbers.
        config: nested values, shown beside the numbers.
        warn: gets a line.
    """
    if name == "none":
        return None
    if name == "tensorboard":
        return open_tensorboard(run / "tensorboard", step)
    begin = {"wandb": _begin_wandb, "trackio": _begin_trackio}[name]
    return _Logged(name, lambda: begin(run, _identity(run, step), config), warn)


class _Logged:
    """A program whose run has `log` and `finish`."""

    def __init__(self, name: str, begin: Callable[[], Any], warn: Callable[[str], None]):
        self._beside = Beside(name, warn)
        self._begun: list[Any] = []  # empty where it could not begin
        self._beside(lambda: self._begun.append(begin()))

    def write(self, step: int, numbers: Iterable[tuple[str, float | None]]) -> None:
        measured = {tag: number for tag, number in numbers if number is not None}
        self._beside(lambda: [begun.log(measured, step=step) for begun in self._begun])

    def close(self) -> None:
        self._beside(lambda: [begun.finish() for begun in self._begun])
        self._beside.close()


def _begin_wandb(run: Path, identity: str, config: dict[str, Any]) -> Any:
    import wandb  # pyright: ignore[reportMissingImports] - optional

    return wandb.init(
        project=_PROJECT,
        name=run.name,
        id=identity,
        resume="allow",
        dir=run,
        mode="offline",
        config=config,
        settings=wandb.Settings(silent=True, console="off"),
    )


def _begin_trackio(run: Path, identity: str, config: dict[str, Any]) -> Any:
    import trackio  # pyright: ignore[reportMissingImports] - optional

    name = f"{run.name}-{identity}"
    unasked = {"embed": False, "auto_log_cpu": False, "auto_log_gpu": False}
    return trackio.init(project=_PROJECT, name=name, resume="allow", config=config, **unasked)


def _identity(run: Path, step: int) -> str:
    """What names the run to a tracker for good: RUN/tracker_id.txt, made anew where the run begins."""
    path = run / "tracker_id.txt"
    if not step or not path.exists():
        path.write_text(uuid.uuid4().hex[:8], encoding="utf-8")
    return path.read_text(encoding="utf-8")
