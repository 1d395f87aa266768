"""A step's files by plain reads, without orbax or a device: its manifest, a checksum of every file, and which
steps a directory has.

Here it is decided what is damage: what was read and is wrong, or is not there though the manifest lists it.
What could not be read is a CheckpointError: it says nothing about the step.
"""

import errno
import hashlib
import json
import os
import shutil
import zlib
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from llm_jax.base.errors import CheckpointError, UserError
from llm_jax.base.json_lines import read_lines

REJECTED = "rejected-"  # begins the name of a step that was set aside
# Where orbax put it in steps of earlier versions.
MANIFEST = "manifest/_strings.json"
_BLOCK = 1 << 20  # bytes read at once
_WRONG = (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP)  # not there, or of another kind


class Damaged(Exception):
    """A step that cannot be trusted; the message says why."""


def checkpoint_directory(run: Path) -> Path:
    """Return where a run keeps its checkpoints."""
    return run / "checkpoints"


def is_unfinished(directory: Path) -> bool:
    """Return whether a directory has nothing but a folder without any checkpoint: its making was stopped."""
    folder = checkpoint_directory(directory)
    if not folder.is_dir() or {entry.name for entry in os.scandir(directory)} != {folder.name}:
        return False
    return all(name == ".lock" or ".tmp" in name for name in os.listdir(folder))


def saved_steps(directory: Path) -> list[int]:
    """Return the committed steps in a directory, in no order, verified or not; CheckpointError when it cannot
    be listed.
    """
    try:
        with os.scandir(directory) as entries:
            names = [entry.name for entry in entries if entry.name.isdecimal() and _leads_to_a_step(entry)]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise CheckpointError(
            f"{directory} must be a folder that can be read: {_reason(error)}; nothing was changed"
        ) from None
    return [int(name) for name in names if str(int(name)) == name]  # no 007, no digits of other scripts


def no_checkpoint(directory: Path) -> str:
    """Say that a run has no checkpoint, and which runs beside it have a folder of them."""
    run = directory.parent
    if run.is_dir():
        return f"{run} has no checkpoint in {directory}"
    beside = sorted(path.parent.name for path in run.parent.glob(f"*/{checkpoint_directory(run).name}"))
    return f"no such run: {run}" + (f" (runs here: {', '.join(beside[:9])})" if beside else "")


def write_manifest(path: Path, about: Mapping[str, Any], leaves: Mapping[str, Any]) -> None:
    """Seal a step: what it is, its leaves, and size and CRC-32 of every file that it has, read back.

    Raises:
        OSError: it cannot be written, or comes back otherwise.
    """
    files = {name: list(_size_and_sum(path, name)) for name in sorted(_files(path))}
    text = json.dumps({"about": dict(about), "leaves": leaves, "files": files})
    sealed = json.dumps({"text": text, "sha256": hashlib.sha256(text.encode()).hexdigest()})
    (path / MANIFEST).parent.mkdir()
    (path / MANIFEST).write_text(sealed, encoding="utf-8")
    if (path / MANIFEST).read_text(encoding="utf-8") != sealed:
        raise OSError("the manifest cannot be read back as it was written")


def open_manifest(path: Path) -> dict[str, Any]:
    """Return a step's "about", "leaves" and "files".

    Args:
        path: a step's folder, named by its number.

    Raises:
        Damaged: it is not the manifest that was written, or that of another step.
        CheckpointError: it could not be read.
    """
    try:
        raw = b"".join(_blocks(path, MANIFEST))
        sealed = json.loads(raw.decode())
        if hashlib.sha256(sealed["text"].encode()).hexdigest() != sealed["sha256"]:
            raise Damaged("its manifest does not have its checksum")
        manifest = json.loads(sealed["text"])
        step = manifest["about"]["step"]
    except MemoryError as error:
        raise unreadable(path, error) from None
    except (KeyError, TypeError, AttributeError, ValueError, RecursionError) as error:
        raise Damaged(f"its manifest cannot be read ({error})") from None
    if str(step) != path.name:
        raise Damaged(f"it is step {step} under another name")
    return manifest


def sound_steps(directory: Path) -> Iterator[tuple[int, float | None]]:
    """Return each step whose manifest is sound, with its score."""
    for step in saved_steps(directory):
        try:
            score = open_manifest(directory / str(step))["about"].get("score")
        except Damaged:
            continue
        except CheckpointError:
            if os.path.lexists(directory / str(step)):
                raise
            continue  # the run that writes there has removed it in between
        yield step, score


def best_step(scores: Mapping[int, float | None]) -> int | None:
    """Return the step with the lowest score, the earliest of equals; None where no step has one."""
    scored = [(score, step) for step, score in scores.items() if score is not None]
    return min(scored)[1] if scored else None


def refuse_lost_run(directory: Path) -> None:
    """Raise CheckpointError where a run has no checkpoint, but had some or was trained."""
    run = directory.parent
    aside = sorted(path.name for path in directory.glob(f"{REJECTED}*"))
    trained = max((line["step"] for line in read_lines(run / "metrics.jsonl")), default=0)
    if not aside and not trained:
        return
    what = f"{directory} has {len(aside)} checkpoints and none is undamaged ({', '.join(aside)[:200]})"
    if not aside:
        what = f"{run} was trained to step {trained} and {directory} has no checkpoint"
    raise CheckpointError(
        f"{what}; a run does not begin anew by itself: put a sound one back as {directory / 'STEP'}, give "
        f"another --train.run, or remove {run}"
    )


def set_aside(path: Path) -> Path:
    """Rename a damaged step; give its new place."""
    number = sum(1 for _ in path.parent.glob(f"{REJECTED}{path.name}-*"))
    aside = path.with_name(f"{REJECTED}{path.name}-{number}")
    try:
        path.rename(aside)
    except OSError as error:
        raise CheckpointError(f"{path} is damaged and cannot be set aside: {error.strerror}") from None
    return aside


def remove_all(directory: Path, pattern: str) -> None:
    """Delete what has such a name, as far as it can be; of a link the link alone."""
    for path in directory.glob(pattern):
        shutil.rmtree(path, ignore_errors=True)
        with suppress(OSError):
            path.unlink()


def require_files(path: Path, manifest: Mapping[str, Any]) -> None:
    """Read every file that a step's manifest lists, in memory of one block.

    Raises:
        Damaged: one is missing, or has not the bytes that were written.
        CheckpointError: one could not be read, or an earlier version wrote no list of them.
    """
    if "files" not in manifest:
        raise CheckpointError(
            f"whether {path} is damaged cannot be told: an earlier version saved it without a list of its "
            f"files; nothing was changed (to go on from the step before it, rename it)"
        )
    for name, (size, checksum) in manifest["files"].items():
        got_size, got_checksum = _size_and_sum(path, name)
        if got_size != size:
            raise Damaged(f"{name} has {got_size:,} bytes, not {size:,}")
        if got_checksum != checksum:
            raise Damaged(f"{name} does not have its checksum")


def unreadable(path: Path, error: BaseException) -> CheckpointError:
    """Return the error for a step that is there and could not be read."""
    return CheckpointError(
        f"{path} could not be read ({_reason(error)}): nothing was changed; the same command works once that "
        "is mended"
    )


def sync_tree(path: Path) -> None:
    """Make all below a folder outlive a power cut: orbax syncs its arrays, not its metadata."""
    for folder, _, files in os.walk(path):
        for name in [folder, *(os.path.join(folder, file) for file in files)]:
            sync(name)


def sync(name: str | Path) -> None:
    """Bring a file, or the names in a folder, to the disk."""
    descriptor = os.open(name, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _leads_to_a_step(entry: os.DirEntry[str]) -> bool:
    """Whether it is a folder, or a link that leads nowhere now: who follows it finds it unreadable."""
    return entry.is_dir() if not entry.is_symlink() or os.path.exists(entry.path) else True


def _files(path: Path) -> Iterator[str]:
    """Every file below a folder, by its path from there."""
    for folder, _, names in os.walk(path):
        yield from (Path(folder, name).relative_to(path).as_posix() for name in names)


def _size_and_sum(path: Path, name: str) -> tuple[int, int]:
    size = checksum = 0
    for block in _blocks(path, name):
        size, checksum = size + len(block), zlib.crc32(block, checksum)
    return size, checksum


def _blocks(path: Path, name: str) -> Iterator[bytes]:
    """A file of a step, block by block."""
    try:
        with open(path / name, "rb") as file:
            while block := file.read(_BLOCK):
                yield block
    except OSError as error:
        if error.errno in _WRONG and path.is_dir():
            raise Damaged(f"{name} is missing") from None
        raise unreadable(path, error) from None
    except MemoryError as error:
        raise unreadable(path, error) from None


def _reason(error: BaseException) -> str:
    """What an error says, on one line: of the system's its words and file, of others the class as well."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror + (f": {error.filename}" if error.filename else "")
    name = "" if isinstance(error, UserError) else f"{type(error).__name__}: "
    return " ".join(f"{name}{error}".split())[:300]
