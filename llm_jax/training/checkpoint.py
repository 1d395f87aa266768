"""Checkpoints: the only place that touches orbax.

A directory holds one folder a step, committed by orbax's atomic rename. Inside, each part of the state
("params", "opt_state" ...) is a checkpointable of its own, beside a manifest: what the checkpoint is
(`about`) and the shape, type and checksum of every leaf. Orbax does not check the bytes of arrays, so nothing
is handed out before its checksums are computed anew and agree.
"""

import hashlib
import json
import logging
import math
import os
import shutil
import warnings
from collections.abc import Callable, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import jax
from orbax.checkpoint import v1 as ocp

from llm_jax.errors import CheckpointError
from llm_jax.training.integrity import checksums, describe
from llm_jax.training.lock import DirectoryLock
from llm_jax.tree import Tree

State = dict[str, Any]
_TEMPORARY = ".orbax-checkpoint-tmp"


class Restored(NamedTuple):
    """A state that was verified."""

    step: int
    state: State
    about: dict[str, Any]


class _Damaged(Exception):
    """A step that cannot be trusted; the message says why."""


class Checkpoints:
    """The checkpoints of one run, open for writing by this process alone.

    Args:
        directory: made if it does not exist.
        keep: how many of the latest to keep; the one with the lowest score is kept besides.
        about: JSON values that make each checkpoint self-describing.
        report: gets one line a remark (a failed save, a damaged step).

    Raises:
        UserError: another process writes there.
        CheckpointError: the directory cannot be written.
    """

    def __init__(
        self, directory: Path, *, keep: int, about: Mapping[str, Any], report: Callable[[str], None] = print
    ):
        self._directory, self._keep, self._about, self._report = (
            directory.resolve(),
            keep,
            dict(about),
            report,
        )
        self._lock = DirectoryLock(self._directory)
        for leftover in self._directory.glob(f"*{_TEMPORARY}*"):
            shutil.rmtree(leftover, ignore_errors=True)
        self._scores = {step: _score_of(self._path(step)) for step in _steps(self._directory)}
        self._failure: str | None = None

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, error_type: type | None, *_: object) -> None:
        self.close(raise_failure=error_type is None)

    def latest_step(self) -> int | None:
        """The newest committed step, verified or not."""
        return max(_steps(self._directory), default=None)

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
        """
        path = self._path(step)
        if path.exists():
            return
        finite = {name: value if math.isfinite(value) else None for name, value in metrics.items()}
        score = score if score is not None and math.isfinite(score) else None
        about = self._about | {"step": step, "metrics": finite, "score": score}
        leaves = {part: _describe_with_sums(tree) for part, tree in state.items()}
        try:
            _require_room(self._directory, state)
            with _quiet():
                ocp.save_checkpointables(path, state | {"manifest": _seal(about, leaves)})
            _sync_tree(path)
            self._failure = None
            self._scores[step] = score
            self._prune()
        except Exception as error:  # noqa: BLE001 - orbax raises what the file system gives it, in many classes
            self._note_failure(step, error)

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
            CheckpointError: a sound step holds another model or optimizer, or steps exist and none verifies.
        """
        steps = sorted(_steps(self._directory), reverse=True)
        for step in steps:
            try:
                state, about = _load(self._path(step), abstract_state)
                return Restored(step, state, about)
            except _Damaged as damage:
                aside = self._set_aside(step)
                self._report(f"warning: checkpoint {step} is damaged ({damage}); set aside as {aside.name}")
        if steps:
            raise CheckpointError(f"{self._directory} has {len(steps)} checkpoints and none is undamaged")
        return None

    def _path(self, step: int) -> Path:
        return self._directory / str(step)

    def _note_failure(self, step: int, error: Exception) -> None:
        reason = " ".join(str(error).split())[:300]
        self._failure = f"checkpoint {step} could not be saved in {self._directory}: {reason}"
        self._report(f"warning: {self._failure}; training goes on, the next save will be tried")
        for leftover in self._directory.glob(f"{step}{_TEMPORARY}*"):
            shutil.rmtree(leftover, ignore_errors=True)

    def _prune(self) -> None:
        steps = sorted(_steps(self._directory))
        kept = set(steps[-self._keep :])
        scored = {step: score for step in steps if (score := self._scores.get(step)) is not None}
        if scored:
            kept.add(min(scored, key=lambda step: scored[step]))
        for step in steps:
            if step not in kept:
                # Renamed first: a kill in the middle of the deletion must not leave half a step under a
                # step's name.
                doomed = self._directory / f"{step}{_TEMPORARY}-deleting"
                self._path(step).rename(doomed)
                shutil.rmtree(doomed, ignore_errors=True)

    def _set_aside(self, step: int) -> Path:
        number = sum(1 for _ in self._directory.glob(f"rejected-{step}-*"))
        aside = self._directory / f"rejected-{step}-{number}"
        self._path(step).rename(aside)
        self._scores.pop(step, None)
        return aside


def read_about(directory: Path, step: int | None = None) -> dict[str, Any]:
    """What the newest readable checkpoint says of itself; changes nothing on disk.

    Raises:
        CheckpointError: there is none, or it is damaged.
    """
    return _newest(directory, step, _open_manifest)["about"]


def read_params(
    directory: Path, abstract_params: Tree, *, name: str = "params", step: int | None = None
) -> tuple[Tree, dict[str, Any]]:
    """One part of the newest checkpoint that verifies, and what it says of itself; changes nothing on disk.

    Args:
        directory: as given to `Checkpoints`.
        abstract_params: shape structs of that part.
        name: which part of the state.
        step: a certain one instead of the newest.

    Raises:
        CheckpointError: there is none, it is damaged, or it holds another model.
    """
    state, about = _newest(directory, step, lambda path: _load(path, {name: abstract_params}))
    return state[name], about


def read_state(directory: Path) -> State:
    """All parts of the newest checkpoint that verifies, as the nested arrays that were saved; changes nothing
    on disk.

    Raises:
        CheckpointError: there is none, or it is damaged.
    """

    def read(path: Path) -> State:
        leaves = _open_manifest(path)["leaves"]
        state = _orbax(path, dict.fromkeys(leaves))
        _require_sums(state, leaves)
        return state

    return _newest(directory, None, read)


def _newest(directory: Path, step: int | None, read: Callable[[Path], Any]) -> Any:
    steps = sorted(_steps(directory), reverse=True)
    if not steps or (step is not None and step not in steps):
        which = "a checkpoint" if step is None else f"checkpoint {step}"
        raise CheckpointError(
            f"{directory} must hold {which}; it has {'none' if not steps else f'steps {sorted(steps)}'}"
        )
    damages = []
    for candidate in steps if step is None else [step]:
        try:
            return read(directory.resolve() / str(candidate))
        except _Damaged as damage:
            damages.append(f"{candidate}: {damage}")
    raise CheckpointError(f"{directory} has no undamaged checkpoint ({'; '.join(damages)[:500]})")


def _load(path: Path, abstract_state: State) -> tuple[State, dict[str, Any]]:
    manifest = _open_manifest(path)
    device = jax.sharding.SingleDeviceSharding(jax.devices()[0])

    def placed(leaf: Any) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(
            leaf.shape, leaf.dtype, sharding=getattr(leaf, "sharding", None) or device
        )

    for part, tree in abstract_state.items():
        _require_same(path, part, manifest["leaves"].get(part, {}), describe(tree))
    state = _orbax(path, jax.tree.map(placed, abstract_state))
    _require_sums(state, manifest["leaves"])
    return state, manifest["about"]


def _require_sums(state: State, leaves: dict[str, dict[str, list]]) -> None:
    for part, tree in state.items():
        for name, sums in checksums(tree).items():
            if sums != leaves[part].get(name, [None, None])[2:]:
                raise _Damaged(f"{part}/{name} does not have its checksum")


def _require_same(path: Path, part: str, got: dict[str, list], wanted: dict[str, list]) -> None:
    faults = [f"{part}/{name} is missing" for name in wanted if name not in got]
    faults += [f"{part}/{name} is not asked for" for name in got if name not in wanted]
    faults += [
        f"{part}/{name} is {got[name][0]} {got[name][1]}, must be {kind[0]} {kind[1]}"
        for name, kind in wanted.items()
        if name in got and got[name][:2] != kind
    ]
    if faults:
        more = f" and {len(faults) - 3} more" if len(faults) > 3 else ""
        raise CheckpointError(f"{path} holds another model or optimizer: {'; '.join(faults[:3])}{more}")


def _describe_with_sums(tree: Any) -> dict[str, list]:
    sums = checksums(tree)
    return {name: [*kind, *sums[name]] for name, kind in describe(tree).items()}


def _seal(about: dict[str, Any], leaves: dict[str, Any]) -> dict[str, str]:
    text = json.dumps({"about": about, "leaves": leaves})
    return {"text": text, "sha256": hashlib.sha256(text.encode()).hexdigest()}


def _open_manifest(path: Path) -> dict[str, Any]:
    sealed = _orbax(path, {"manifest": None})["manifest"]
    try:
        text = sealed["text"]
        if hashlib.sha256(text.encode()).hexdigest() != sealed["sha256"]:
            raise _Damaged("its manifest does not have its checksum")
        return json.loads(text)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise _Damaged(f"its manifest cannot be read ({error})") from None


def _orbax(path: Path, parts: dict[str, Any]) -> dict[str, Any]:
    try:
        with _quiet():
            return ocp.load_checkpointables(path, parts)
    except Exception as error:  # noqa: BLE001 - damage surfaces as whatever the damaged reader raises
        cause = error.__cause__ or error
        raise _Damaged(" ".join(f"{type(cause).__name__}: {cause}".split())[:200]) from None


def _score_of(path: Path) -> float | None:
    try:
        return _open_manifest(path)["about"].get("score")
    except _Damaged:
        return None


def _steps(directory: Path) -> list[int]:
    try:
        return [int(path.name) for path in directory.iterdir() if path.name.isdecimal() and path.is_dir()]
    except FileNotFoundError:
        return []


def _require_room(directory: Path, state: State) -> None:
    needed = sum(leaf.nbytes for leaf in jax.tree.leaves(state))
    free = shutil.disk_usage(directory).free
    if free < needed:
        raise OSError(f"{needed:,} bytes are needed, {free:,} are free")


def _sync_tree(path: Path) -> None:
    """Makes a committed step outlive a power cut: orbax syncs its arrays, not its metadata nor the rename."""
    for folder, _, files in os.walk(path):
        for name in [folder, *(os.path.join(folder, file) for file in files)]:
            _sync(name)
    _sync(path.parent)


def _sync(name: str | Path) -> None:
    descriptor = os.open(name, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _quiet() -> Any:
    """Keeps orbax's running commentary out of the user's sight; what matters comes back as errors."""
    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="orbax")
            yield
    finally:
        logger.setLevel(level)
