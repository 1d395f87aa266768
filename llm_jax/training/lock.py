"""One writer a directory: an advisory lock that dies with its process."""

import fcntl
import os
import socket
from pathlib import Path

from llm_jax.errors import CheckpointError, UserError


class DirectoryLock:
    """Held from construction to `release`.

    Raises:
        UserError: another process holds it.
        CheckpointError: the directory cannot be made or written.
    """

    def __init__(self, directory: Path):
        path = directory / ".lock"
        try:
            directory.mkdir(parents=True, exist_ok=True)
            self._file = path.open("a+")
        except OSError as error:
            raise CheckpointError(
                f"{directory} must be a directory that can be written: {error.strerror}"
            ) from None
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._file.seek(0)
            holder = self._file.read().strip() or "another process"
            self._file.close()
            raise UserError(
                f"{directory} is being written by {holder}; wait for it, or give another --train.run"
            ) from None
        self._file.truncate(0)
        self._file.write(f"process {os.getpid()} on {socket.gethostname()}")
        self._file.flush()

    def release(self) -> None:
        self._file.close()
