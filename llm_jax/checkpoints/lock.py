"""One writer a directory: an advisory lock that dies with its process or, on file systems that have none, a
file with a heart-beat.
"""

import errno
import fcntl
import os
import socket
import threading
import uuid
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from llm_jax.base.errors import CheckpointError, UserError
from llm_jax.base.terminal import say

BEAT = 10.0  # seconds between two touches of a lock file
STALE = 120.0  # seconds without one after which its process is taken for dead
_NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP)


class DirectoryLock:
    """Held from construction to `release`.

    Args:
        directory: made if it does not exist.
        report: gets one line where the file system has no locks.

    Raises:
        UserError: another process holds it.
        CheckpointError: the directory cannot be made or written.
    """

    def __init__(self, directory: Path, report: Callable[[str], None] = say):
        self._beating: _BeatingFile | None = None
        try:
            directory.mkdir(parents=True, exist_ok=True)
            self._file = (directory / ".lock").open("a+")
        except OSError as error:
            raise CheckpointError(
                f"{directory} must be a directory that can be written: {error.strerror}"
            ) from None
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._file.seek(0)
            holder = self._file.read().strip()
            self._file.close()
            raise _in_use(directory, holder) from None
        except OSError as error:
            self._file.close()
            if error.errno not in _NO_LOCKS:
                raise CheckpointError(f"{directory} could not be locked: {error.strerror}") from None
            self._beating = _BeatingFile(directory)
            report(
                f"warning: {directory} is on a file system without locks ({error.strerror}); a file there "
                f"says every {BEAT:.0f} s that this process writes"
            )
            return
        self._file.truncate(0)
        self._file.write(_this_process())
        self._file.flush()

    def require_held(self) -> None:
        """Raise CheckpointError when another process has taken the directory over."""
        if self._beating:
            self._beating.require_held()

    def release(self) -> None:
        """Let others write; a second time does nothing."""
        if self._beating:
            self._beating.release()
        self._file.close()


class _BeatingFile:
    """A file that exists while its process holds a directory, touched by a thread. Its lines are the holder,
    the host and process number, and a token that no other file has.
    """

    def __init__(self, directory: Path):
        self._directory, self._path = directory, directory / ".lock-beating"
        self._text = f"{_this_process()}\n{socket.gethostname()} {os.getpid()}\n{uuid.uuid4()}\n"
        # Whole before it is seen under its name: linking fails where that name is taken, on any file system.
        own = directory / f".lock-{uuid.uuid4()}"
        try:
            own.write_text(self._text, encoding="utf-8")
            try:
                if not _linked(own, self._path):
                    self._take_over(own)
            finally:
                own.unlink()
        except OSError as error:
            raise CheckpointError(f"{directory} could not be locked: {error}") from None
        self._ended = threading.Event()
        threading.Thread(target=self._beat, daemon=True).start()

    def require_held(self) -> None:
        try:
            found = _read(self._path)
        except OSError:
            return  # That says nothing about who holds it.
        if found != self._text:
            raise CheckpointError(
                f"{self._directory} was taken over by another process, as this one had not been seen for "
                f"{STALE:.0f} s; nothing more is written there"
            )

    def release(self) -> None:
        self._ended.set()
        with suppress(OSError):
            if _read(self._path) == self._text:
                self._path.unlink()

    def _take_over(self, own: Path) -> None:
        """In place of a holder that is dead. One process at a time tries: the name that it links to is a lock
        of its own, and the holder's name is never free meanwhile.
        """
        self._require_stale(own)
        taking = self._directory / ".lock-taking"
        if not _linked(own, taking):
            if own.stat().st_mtime - taking.stat().st_mtime > STALE:
                taking.unlink()  # Its process died there: the next that tries goes on.
            raise _in_use(self._directory, "another process that has just begun")
        try:
            self._require_stale(own)
        except BaseException:
            taking.unlink()
            raise
        taking.rename(self._path)

    def _require_stale(self, own: Path) -> None:
        found = _read(self._path)
        if not self._is_stale(found, own):
            raise _in_use(self._directory, found.partition("\n")[0])

    def _is_stale(self, found: str, own: Path) -> bool:
        """Whether its process is dead on this host, or has not touched it for long by the files' clock."""
        try:
            host, number = found.splitlines()[1].rsplit(" ", 1)
            if host == socket.gethostname():
                os.kill(int(number), 0)
        except ProcessLookupError:
            return True
        except (IndexError, ValueError, OSError, OverflowError):
            pass  # Not such a file, or a process of another user: its age decides.
        try:
            return own.stat().st_mtime - self._path.stat().st_mtime > STALE
        except FileNotFoundError:
            return False  # It was just released: whoever asks again finds its name free.

    def _beat(self) -> None:
        while not self._ended.wait(BEAT):
            with suppress(OSError):
                if _read(self._path) == self._text:
                    os.utime(self._path)


def _linked(source: Path, name: Path) -> bool:
    """Gives a file a second name, unless that is taken."""
    try:
        os.link(source, name)
    except FileExistsError:
        return False
    return True


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return ""


def _this_process() -> str:
    return f"process {os.getpid()} on {socket.gethostname()}"


def _in_use(directory: Path, holder: str) -> UserError:
    return UserError(
        f"{directory} is being written by {holder or 'another process'}; wait for it, or give another "
        "--train.run"
    )
