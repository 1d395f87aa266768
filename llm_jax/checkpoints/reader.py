"""Checkpoints read: the best step or the newest, if it verifies, its state, parameters, and what it says of
itself.

Which step is asked for is "best" (the lowest validation loss; the newest where no step was evaluated), "last"
or a number. One that is damaged is passed over, with a line, for the newest that verifies; a number never is.
"""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from llm_jax.base.bars import tracked
from llm_jax.base.errors import CheckpointError, UserError
from llm_jax.base.tree import State, Tree
from llm_jax.checkpoints.step_files import (
    Damaged,
    best_step,
    no_checkpoint,
    open_manifest,
    require_files,
    saved_steps,
    sound_steps,
)
from llm_jax.checkpoints.step_folder import leaves_digest, load_everything, load_params, load_step

Step = int | str  # a number, "best" or "last"
Report = Callable[[str], None]


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


def read_about(directory: Path, step: Step = "last") -> dict[str, Any]:
    """Return what a checkpoint says of itself; changes nothing on disk.

    Raises:
        CheckpointError: there is none, it is damaged, or it could not be read.
        UserError: `step` names none.
    """
    return _read(directory, step, open_manifest)["about"]


def said_of_step(directory: Path, asked: Step, step: int) -> str:
    """Return which step was taken, in words: 'step 3,000 of 5,000, the best by validation'.

    Args:
        directory: as given to `Checkpoints`.
        asked: what was asked for.
        step: what was read.
    """
    newest, best = max(saved_steps(directory)), best_step(dict(sound_steps(directory)))
    why = "the last" if step == newest else "the last that is undamaged"
    if asked == "best" and step == best:
        why = "the best by validation"
    elif asked == "best" and best is None:
        why += ", as none was evaluated"
    elif asked not in ("best", "last"):
        why = "as asked for"
    return f"step {step:,} of {newest:,}, {why}"


def read_digest(directory: Path, part: str, step: int) -> str:
    """Return SHA-256 over names, shapes, types and checksums of a step's part; CheckpointError as
    `read_about`.
    """
    return _read(directory, step, lambda path: leaves_digest(path, part))


def read_params(
    directory: Path,
    abstract_params: Tree,
    *,
    name: str = "params",
    step: Step = "last",
    report: Report = lambda line: None,
) -> tuple[Tree, dict[str, Any]]:
    """Return parameters of a checkpoint that verifies, and what it says of itself; changes nothing on disk.

    Args:
        directory: as given to `Checkpoints`.
        abstract_params: shape structs of that part; its types are those that come back, since a run keeps
            wider ones than a model's own.
        name: which part of the state.
        step: which one.
        report: gets a line for each damaged step that was passed over.

    Raises:
        CheckpointError: there is none, it is damaged or could not be read, or it holds another model.
        UserError: `step` names none.
    """
    return _read(directory, step, lambda path: load_params(path, name, abstract_params), report)


def read_restored(
    directory: Path, abstract_state: State, step: Step = "last", report: Report = lambda line: None
) -> Restored:
    """Return the whole state of a checkpoint that verifies, in the structure of `abstract_state`; changes
    nothing on disk. For `step` and `report` see `read_params`.

    Raises:
        CheckpointError: there is none, it is damaged or could not be read, or it holds another model or
            optimizer.
        UserError: `step` names none.
    """
    read = lambda path: Restored(int(path.name), *load_step(path, abstract_state))  # noqa: E731
    return _read(directory, step, read, report)


def read_state(directory: Path) -> State:
    """Return all parts of the newest checkpoint that verifies, as the nested arrays that were saved; changes
    nothing on disk.

    Raises:
        CheckpointError: there is none, it is damaged, or it could not be read.
    """
    return _read(directory, "last", load_everything)


def verify_steps(directory: Path) -> list[Verified]:
    """Read every byte of every step back and verifies its checksums, oldest step first, in memory of one
    block; changes nothing on disk. What could not be read is a fault too, and say so.
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
    """Return the newest state of step `last` or earlier that verifies, None where there is none; changes
    nothing on disk.

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


def _read(
    directory: Path, asked: Step, read: Callable[[Path], Any], report: Report = lambda line: None
) -> Any:
    """What `read` makes of the first step in order of preference that is not damaged."""
    text, steps = str(asked), sorted(saved_steps(directory), reverse=True)
    number = int(text) if re.fullmatch("[0-9]{1,18}", text) else None
    if number is None and text not in ("best", "last"):
        raise UserError(f"step must be best, last or the number of a checkpoint, got {text!r}")
    if not steps:
        raise CheckpointError(no_checkpoint(directory))
    if number is not None and number not in steps:
        raise CheckpointError(f"{directory} must hold checkpoint {number}; it has steps {steps[::-1]}")
    if number is not None:
        steps = [number]
    elif text == "best":
        steps = list(dict.fromkeys([*_best_first(directory, steps), *steps]))
    damages = []
    for candidate in steps:
        try:
            return read(directory.resolve() / str(candidate))
        except Damaged as damage:
            damages.append(f"{candidate}: {damage}")
            if candidate != steps[-1]:
                report(f"warning: checkpoint {candidate} is damaged ({damage}); passed over")
    raise CheckpointError(f"{directory} has no undamaged checkpoint ({'; '.join(damages)[:500]})")


def _best_first(directory: Path, steps: list[int]) -> Iterator[int]:
    """Steps that do not say how good they are, since one may have been the best and its damage is said, then
    the best of the others.
    """
    scores = dict(sound_steps(directory))
    yield from (step for step in steps if step not in scores)
    best = best_step(scores)
    if best is not None:
        yield best
