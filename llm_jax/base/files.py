"""Files and folders that are being made beside what they will become.

The process that makes one holds it (`flock`), so that no two write one, and what a killed process left is
told from the work of a living one: nobody holds it. The next start goes on with it or removes it. Where a
file system knows no such locks, what was not touched for a day counts as left.
"""

import fcntl
import os
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_DAY_SECONDS = 24 * 3600


@contextmanager
def new_folder(parent: Path, prefix: str) -> Iterator[Path]:
    """Yield an empty folder in `parent`, which must be there; gone afterwards unless it was renamed.

    What killed processes left under this prefix is removed before. The folder's access follows the umask, as
    that of what it becomes should.
    """
    remove_left(parent, prefix)
    while True:
        path = parent / f"{prefix}{secrets.token_hex(6)}"
        path.mkdir()
        if (held := _hold(path, is_new=True)) is not None:
            break
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)
        os.close(held)


@contextmanager
def held_file(path: Path) -> Iterator[Path]:
    """Yield the file `path`, with what a killed process left in it, or one beside it while another process
    holds that. Unless it is empty, what is left of it afterwards stays, for the next to go on with.
    """
    for name in (path.name, *(f"{path.name}-{secrets.token_hex(6)}" for _ in range(3))):
        own = path.with_name(name)
        is_new = not own.exists()
        own.open("ab").close()
        if (held := _hold(own, is_new)) is not None:
            break
    else:
        raise OSError(f"{path} is written by other processes")
    try:
        yield own
    finally:
        with suppress(OSError):
            if not own.stat().st_size:
                own.unlink()
        os.close(held)


def write_whole(path: Path, content: bytes) -> None:
    """Put a file in place in one step: a reader sees the one before, or this one whole."""
    with new_folder(path.parent, f"{path.name}.") as folder:
        (folder / path.name).write_bytes(content)
        (folder / path.name).replace(path)


@contextmanager
def made_whole(path: Path) -> Iterator[Path]:
    """Yield a file or folder to write to, which becomes `path` unless something fails; then nothing of it
    stays.

    For what this process alone writes; OSError as the file system has it.
    """
    part = path.with_name(path.name + ".part")
    _remove(part)
    try:
        yield part
        part.replace(path)
    finally:
        _remove(part)


def _remove(path: Path) -> None:
    with suppress(OSError):  # the folder that it is in may be none, which whoever writes will hear
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


def remove_left(parent: Path, prefix: str) -> None:
    """Remove what killed processes left in `parent` under names with this prefix; never fails."""
    with suppress(OSError):
        left = [parent / name for name in os.listdir(parent) if name.startswith(prefix)]
        for path in left:
            if (held := _hold(path)) is not None:
                with suppress(OSError):
                    shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink()
                os.close(held)


def _hold(path: Path, is_new: bool = False) -> int | None:
    """A descriptor that holds what is at this path until it is closed; None where another process does, or
    nothing is there any more.
    """
    try:
        found = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return None
    try:
        fcntl.flock(found, fcntl.LOCK_EX | fcntl.LOCK_NB)
        free = True
    except BlockingIOError:
        free = False
    except OSError:  # no locks here
        free = is_new or time.time() - os.fstat(found).st_mtime > _DAY_SECONDS
    # Another process may have renamed or removed it before it was held.
    with suppress(OSError):
        if free and os.path.samestat(os.fstat(found), os.stat(path)):
            return found
    os.close(found)
    return None
