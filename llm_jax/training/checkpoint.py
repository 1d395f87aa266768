"""The checkpoints of a run: one writer, the latest and the best kept, the newest that verifies restored.

A directory holds one folder a step (`step_folder`), named by its number.
"""

import math
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from llm_jax.base.errors import CheckpointError
from llm_jax.base.terminal import say
from llm_jax.base.tree import Tree
from llm_jax.training.lock import DirectoryLock
from llm_jax.training.step_files import (
    Damaged,
    open_manifest,
    refuse_lost_run,
    remove_all,
    require_files,
    saved_steps,
    set_aside,
    sound_steps,
)
from llm_jax.training.step_folder import (
    TEMPORARY,
    State,
    leaves_digest,
    load_everything,
    load_params,
    load_step,
    write_step,
)


class Restored(NamedTuple):
    """A state that was verified."""

    step: int
    state: State
    about: dict[str, Any]


class Verified(NamedTuple):
    """What reading a step back has shown."""

    step: int
    score: float | None  # validation loss when it was saved; None where not evaluated, or unreadable
    fault: str  # empty when every file has its checksum


class Checkpoints:
    """The checkpoints of one run, open for writing by this process alone.

    Args:
        directory: made if it does not exist.
        keep: how many of the latest to keep; the one with the lowest score is kept besides.
        about: JSON values that make each checkpoint self-describing.
        report: gets one line a remark (a failed save, a damaged step).

    Raises:
        UserError: another process writes there.
        CheckpointError: the directory cannot be written, or a step there not be read.
    """

    def __init__(
        self, directory: Path, *, keep: int, about: Mapping[str, Any], report: Callable[[str], None] = say
    ):
        self._directory, self._keep = directory.resolve(), keep
        self._about, self._report = dict(about), report
        self._lock = DirectoryLock(self._directory, report)
        remove_all(self._directory, f"*{TEMPORARY}*")
        self._failure: str | None = None
        try:
            # Of sound steps: no other is ever deleted.
            self._scores = dict(sound_steps(self._directory))
        except CheckpointError:
            self._lock.release()
            raise

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, error_type: type | None, *_: object) -> None:
        self.close(raise_failure=error_type is None)

    def latest_step(self) -> int | None:
        """The newest committed step, verified or not; None before a run's first save.

        Raises:
            CheckpointError: steps were saved or trained, and none is left. Such a run never begins anew by
                itself.
        """
        steps = saved_steps(self._directory)
        if not steps:
            refuse_lost_run(self._directory)
        return max(steps, default=None)

    def save(self, step: int, state: State, *, metrics: Mapping[str, float], score: float | None) -> None:
        """Saves, and returns when the step outlives a power cut: so a kill never costs more than the steps
        since the last save.

        A save that fails is reported, and the next one is tried as usual: training goes on. `require_saved`
        and `close` tell whether the last one is safe.

        Args:
            step: names the checkpoint; one that is there already stays.
            state: arrays; each top-level entry can be read alone later.
            metrics: kept in `about`; a number that is not finite becomes null.
            score: lower is better; the best is kept. None, NaN and infinity never win.

        Raises:
            CheckpointError: another process has taken the directory over.
        """
        self._lock.require_held()
        path = self._path(step)
        if os.path.lexists(path):
            return
        finite = {name: value if math.isfinite(value) else None for name, value in metrics.items()}
        score = score if score is not None and math.isfinite(score) else None
        about = self._about | {"step": step, "metrics": finite, "score": score}
        try:
            write_step(path, state, about)
        except Exception as error:  # noqa: BLE001 - orbax raises what the file system gives it, in many classes
            self._note_failure(step, error)
            return
        self._failure = None
        self._scores[step] = score
        try:
            self._prune()
        except OSError as error:
            self._report(f"warning: older checkpoints in {self._directory} could not be removed: {error}")

    def require_saved(self) -> None:
        """CheckpointError when the last save failed."""
        if self._failure:
            raise CheckpointError(self._failure)

    def close(self, *, raise_failure: bool = True) -> None:
        """Lets others write; CheckpointError when the last save failed."""
        self._lock.release()
        if raise_failure:
            self.require_saved()

    def restore(self, abstract_state: State) -> Restored | None:
        """The newest step that verifies, or None where there is none at all; damaged ones are renamed, never
        deleted.

        Args:
            abstract_state: shape structs, with shardings where arrays shall not go to the default device.

        Raises:
            CheckpointError: a sound step holds another model or optimizer, one could not be read, or steps
                were saved and none verifies.
        """
        while (step := self.latest_step()) is not None:
            try:
                return Restored(step, *load_step(self._path(step), abstract_state))
            except Damaged as damage:
                aside = set_aside(self._path(step))
                self._scores.pop(step, None)
                self._report(f"warning: checkpoint {step} is damaged ({damage}); set aside as {aside.name}")
        return None

    def _path(self, step: int) -> Path:
        return self._directory / str(step)

    def _note_failure(self, step: int, error: Exception) -> None:
        reason = " ".join(str(error).split())[:300]
        self._failure = f"checkpoint {step} could not be saved in {self._directory}: {reason}"
        self._report(f"warning: {self._failure}; training goes on, the next save will be tried")
        remove_all(self._directory, f"{step}{TEMPORARY}*")

    def _prune(self) -> None:
        steps = sorted(self._scores)
        kept = set(steps[-self._keep :])
        scored = {step: score for step, score in self._scores.items() if score is not None}
        if scored:
            kept.add(min(scored, key=lambda step: scored[step]))
        for step in steps:
            if step not in kept:
                # Renamed first: a kill in the middle of the deletion must not leave half a step under a
                # step's name.
                doomed = f"{step}{TEMPORARY}-old"
                self._path(step).rename(self._directory / doomed)
                del self._scores[step]
                remove_all(self._directory, doomed)


def read_about(directory: Path, step: int | None = None) -> dict[str, Any]:
    """What the newest readable checkpoint says of itself; changes nothing on disk.

    Raises:
        CheckpointError: there is none, it is damaged, or it could not be read.
    """
    return _newest(directory, step, open_manifest)["about"]


def read_digest(directory: Path, part: str, step: int) -> str:
    """SHA-256 over names, shapes, types and checksums of a step's part; CheckpointError as `read_about`."""
    return _newest(directory, step, lambda path: leaves_digest(path, part))


def read_params(
    directory: Path, abstract_params: Tree, *, name: str = "params", step: int | None = None
) -> tuple[Tree, dict[str, Any]]:
    """Parameters of the newest checkpoint that verifies, and what it says of itself; changes nothing on disk.

    Args:
        directory: as given to `Checkpoints`.
        abstract_params: shape structs of that part; its types are those that come back, since a run keeps
            wider ones than a model's own.
        name: which part of the state.
        step: a certain one instead of the newest.

    Raises:
        CheckpointError: there is none, it is damaged or could not be read, or it holds another model.
    """
    return _newest(directory, step, lambda path: load_params(path, name, abstract_params))


def read_restored(directory: Path, abstract_state: State) -> Restored:
    """The whole state of the newest checkpoint that verifies, in the structure of `abstract_state`; changes
    nothing on disk.

    Raises:
        CheckpointError: there is none, it is damaged or could not be read, or it holds another model or
            optimizer.
    """
    return _newest(directory, None, lambda path: Restored(int(path.name), *load_step(path, abstract_state)))


def read_state(directory: Path) -> State:
    """All parts of the newest checkpoint that verifies, as the nested arrays that were saved; changes nothing
    on disk.

    Raises:
        CheckpointError: there is none, it is damaged, or it could not be read.
    """
    return _newest(directory, None, load_everything)


def verify_steps(directory: Path) -> list[Verified]:
    """Reads every byte of every step back and computes its checksums anew, oldest step first, in memory of
    one block; changes nothing on disk. What could not be read is a fault too, and says so.
    """
    return [_verify(directory.resolve() / str(step)) for step in sorted(saved_steps(directory))]


def _verify(path: Path) -> Verified:
    step, score = int(path.name), None
    try:
        manifest = open_manifest(path)
        score = manifest["about"].get("score")
        require_files(path, manifest)
    except (Damaged, CheckpointError) as fault:
        return Verified(step, score, str(fault))
    return Verified(step, score, "")


def read_before(
    directory: Path, abstract_state: State, last: int, report: Callable[[str], None]
) -> Restored | None:
    """The newest state of step `last` or earlier that verifies, None where there is none; changes nothing on
    disk.

    Args:
        directory: as given to `Checkpoints`.
        abstract_state: shape structs, as for `Checkpoints.restore`.
        last: a step.
        report: gets a line for each damaged step that was passed over.

    Raises:
        CheckpointError: a sound step holds another model or optimizer, or one could not be read.
    """
    for step in sorted((step for step in saved_steps(directory) if step <= last), reverse=True):
        try:
            return Restored(step, *load_step(directory.resolve() / str(step), abstract_state))
        except Damaged as damage:
            report(f"warning: checkpoint {step} is damaged ({damage}); passed over")
    return None


def _newest(directory: Path, step: int | None, read: Callable[[Path], Any]) -> Any:
    steps = sorted(saved_steps(directory), reverse=True)
    if not steps or (step is not None and step not in steps):
        which = "a checkpoint" if step is None else f"checkpoint {step}"
        raise CheckpointError(
            f"{directory} must hold {which}; it has {'none' if not steps else f'steps {sorted(steps)}'}"
        )
    damages = []
    for candidate in steps if step is None else [step]:
        try:
            return read(directory.resolve() / str(candidate))
        except Damaged as damage:
            damages.append(f"{candidate}: {damage}")
    raise CheckpointError(f"{directory} has no undamaged checkpoint ({'; '.join(damages)[:500]})")
