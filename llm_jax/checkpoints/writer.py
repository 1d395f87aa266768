"""The checkpoints of a run: one writer, the latest and the best kept, the newest that verifies restored.

A directory holds one folder a step (`step_folder`), named by its number.
"""

import math
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from llm_jax.base.errors import CheckpointError
from llm_jax.base.terminal import say
from llm_jax.base.tree import State
from llm_jax.checkpoints.lock import DirectoryLock
from llm_jax.checkpoints.reader import Restored
from llm_jax.checkpoints.step_files import (
    Damaged,
    best_step,
    open_manifest,
    refuse_lost_run,
    remove_all,
    saved_steps,
    set_aside,
    sound_steps,
)
from llm_jax.checkpoints.step_folder import TEMPORARY, load_step, write_step


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
        self.since_best = 0  # evaluations since the best one, up to the state that was saved or restored last
        try:
            # Of sound steps: no other is ever deleted.
            self._scores = dict(sound_steps(self._directory))
            if self._scores:
                newest = open_manifest(self._path(max(self._scores)))
                self.since_best = newest["about"].get("since_best", 0)
        except CheckpointError:
            self._lock.release()
            raise

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, error_type: type | None, *_: object) -> None:
        self.close(raise_failure=error_type is None)

    def latest_step(self) -> int | None:
        """Return the newest committed step, verified or not; None before a run's first save.

        Raises:
            CheckpointError: steps were saved or trained, and none is left. Such a run never begins anew by
                itself.
        """
        steps = saved_steps(self._directory)
        if not steps:
            refuse_lost_run(self._directory)
        return max(steps, default=None)

    def best_step(self) -> int | None:
        """Return the step with the lowest score; None before the first evaluation."""
        return best_step(self._scores)

    def save(self, step: int, state: State, *, metrics: Mapping[str, float], score: float | None) -> None:
        """Save, and return when the step outlives a power cut: so a kill never costs more than the steps
        since the last save.

        A save that fails is reported, and the next one is tried as usual: training goes on. `require_saved`
        and `close` tell whether the last one is safe.

        Args:
            step: names the checkpoint; one that is there already stays.
            state: arrays; each top-level entry can be read alone later.
            metrics: kept in `about`; a number that is not finite becomes null.
            score: lower is better; the best is kept. NaN and infinity never win; None was not evaluated.

        Raises:
            CheckpointError: another process has taken the directory over.
        """
        self._lock.require_held()
        path = self._path(step)
        if os.path.lexists(path):
            return
        self._count(score)
        finite = {name: value if math.isfinite(value) else None for name, value in metrics.items()}
        score = score if score is not None and math.isfinite(score) else None
        about = self._about | {"step": step, "metrics": finite, "score": score, "since_best": self.since_best}
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
        """Raise CheckpointError when the last save failed."""
        if self._failure:
            raise CheckpointError(self._failure)

    def close(self, *, raise_failure: bool = True) -> None:
        """Let others write; CheckpointError when the last save failed."""
        self._lock.release()
        if raise_failure:
            self.require_saved()

    def restore(self, abstract_state: State) -> Restored | None:
        """Return the newest step that verifies, or None where there is none at all; damaged ones are renamed,
        never deleted.

        Args:
            abstract_state: shape structs, with shardings where arrays shall not go to the default device.

        Raises:
            CheckpointError: a sound step holds another model or optimizer, one could not be read, or steps
                were saved and none verifies.
        """
        while (step := self.latest_step()) is not None:
            try:
                restored = Restored(step, *load_step(self._path(step), abstract_state))
                self.since_best = restored.about.get("since_best", 0)
                return restored
            except Damaged as damage:
                aside = set_aside(self._path(step))
                self._scores.pop(step, None)
                self._report(f"warning: checkpoint {step} is damaged ({damage}); set aside as {aside.name}")
        return None

    def _path(self, step: int) -> Path:
        return self._directory / str(step)

    def _count(self, score: float | None) -> None:
        """Counts an evaluation, where there was one, as the best so far or as one more since."""
        if score is None:
            return
        best = self.best_step()
        lowest = math.inf if best is None else self._scores[best]
        assert lowest is not None
        self.since_best = 0 if -math.inf < score < lowest else self.since_best + 1

    def _note_failure(self, step: int, error: Exception) -> None:
        reason = " ".join(str(error).split())[:300]
        self._failure = f"checkpoint {step} could not be saved in {self._directory}: {reason}"
        self._report(f"warning: {self._failure}; training goes on, the next save will be tried")
        remove_all(self._directory, f"{step}{TEMPORARY}*")

    def _prune(self) -> None:
        steps = sorted(self._scores)
        kept: set[int | None] = set(steps[-self._keep :])
        kept.add(self.best_step())
        for step in steps:
            if step not in kept:
                # Renamed first: a kill in the middle of the deletion must not leave half a step under a
                # step's name.
                doomed = f"{step}{TEMPORARY}-old"
                self._path(step).rename(self._directory / doomed)
                del self._scores[step]
                remove_all(self._directory, doomed)
