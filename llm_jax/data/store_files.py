"""The files of a token store: whole numbers in flat little-endian files that a manifest vouches for, and a
folder that is there whole or not at all.
"""

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from llm_jax.base.errors import DataError
from llm_jax.base.files import new_folder

UNFINISHED = ".preparing-"
MEND = "delete the folder to prepare it again"
_ELSEWHERE = "let this user read it, or give another folder with --prepared (train: --data.prepared)"


def require_whole(path: Path, holds: bool, fault: str) -> None:
    """Raise DataError where a store is not as it was written."""
    if not holds:
        raise DataError(f"store {path} is damaged: {fault}; {MEND}")


def read_whole(file: Path) -> bytes:
    """Return a file's bytes; what is not there is damage, but not what only cannot be read now or by this
    user.
    """
    try:
        return file.read_bytes()
    except (FileNotFoundError, IsADirectoryError):
        fault = f"store {file.parent} is damaged: {file.name} cannot be read (it is not there); {MEND}"
    except OSError as error:
        fault = f"store {file.parent} cannot be read: {file.name}: {error.strerror}; {_ELSEWHERE}"
    raise DataError(fault)


def open_numbers(file: Path, facts: Mapping[str, Any]) -> np.ndarray:
    """Return the numbers of a file [N], read-only, after a look at all of them."""
    path = file.parent
    require_whole(path, facts["dtype"] in ("<u2", "<u4"), f"{file.name} has dtype {facts['dtype']}")
    raw = read_whole(file)
    wanted = facts["tokens"] * np.dtype(facts["dtype"]).itemsize
    require_whole(path, len(raw) == wanted, f"{file.name} must have {wanted} bytes, got {len(raw)}")
    require_whole(
        path,
        hashlib.sha256(raw).hexdigest() == facts["sha256"],
        f"the bytes of {file.name} are not those written",
    )
    return np.memmap(file, facts["dtype"], mode="r")


def write_numbers(file: Path, numbers: np.ndarray, limit: int) -> dict[str, Any]:
    """Write whole numbers below the limit; return what the manifest says of them."""
    dtype = "<u2" if limit <= 1 << 16 else "<u4"
    raw = numbers.astype(dtype).tobytes()
    _write_durably(file, raw)
    return {"tokens": len(numbers), "dtype": dtype, "sha256": hashlib.sha256(raw).hexdigest()}


def write_folder(path: Path, fill: Callable[[Path], Mapping[str, Any]]) -> None:
    """Make a store's folder.

    Args:
        path: where it will be.
        fill: writes files into the folder that it gets; returns the manifest.

    Raises:
        DataError: it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with new_folder(path.parent, UNFINISHED) as working:
            manifest = fill(working)
            _write_durably(working / "manifest.json", json.dumps(manifest).encode())
            _move_into_place(working, path)
    except OSError as error:
        raise DataError(f"store {path} cannot be written: {error}") from None


def _write_durably(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _move_into_place(working: Path, path: Path) -> None:
    try:
        working.rename(path)
    except OSError:
        if not path.exists():  # Another process was faster; its store is as good as ours.
            raise
