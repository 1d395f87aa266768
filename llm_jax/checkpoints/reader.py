"""Checkpoints read: the newest step that verifies, its state, parameters, and what it says of itself."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from llm_jax.base.bars import tracked
from llm_jax.base.errors import CheckpointError
from llm_jax.base.tree import State, Tree
from llm_jax.checkpoints.step_files import Damaged, no_checkpoint, open_manifest, require_files, saved_steps
from llm_jax.checkpoints.step_folder import leaves_digest, load_everything, load_params, load_step


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
    """Reads every byte of every step back and verifies its checksums, oldest step first, in memory of
    one block; changes nothing on disk. What could not be read is a fault too, and says so.
    """
    steps = tracked(sorted(saved_steps(directory)), "verifying checkpoints")
    return [_verify(directory.resolve() / str(step)) for step in steps]


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
    if not steps:
        raise CheckpointError(no_checkpoint(directory))
    if step is not None and step not in steps:
        raise CheckpointError(f"{directory} must hold checkpoint {step}; it has steps {sorted(steps)}")
    damages = []
    for candidate in steps if step is None else [step]:
        try:
            return read(directory.resolve() / str(candidate))
        except Damaged as damage:
            damages.append(f"{candidate}: {damage}")
    raise CheckpointError(f"{directory} has no undamaged checkpoint ({'; '.join(damages)[:500]})")
