"""What only shows or records a run (terminal, metrics, samples, trackers, pictures, reports) never decides
whether it lives: `Guard` is the one way in which such a thing fails, `Output` the one way to the terminal.
"""

import os
import select
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO

_PATIENCE = 2000  # milliseconds that a reader may keep a run waiting before what it does not read is dropped
_AT_ONCE = 512  # bytes that a pipe takes without waiting when it says that it takes any


class Guard:
    """Contains what shows or records: a failure is one warning for each observer, and the run goes on.

    Args:
        warn: gets a line.
    """

    def __init__(self, warn: Callable[[str], None]):
        self._warn = warn
        self._warned: set[str] = set()

    @contextmanager
    def __call__(self, observer: str) -> Iterator[None]:
        """Contains all that is raised in the block, but for what asks the process to end."""
        try:
            yield
        except (KeyboardInterrupt, SystemExit, GeneratorExit):
            raise
        except BaseException as error:  # noqa: BLE001 - panics of extensions are no Exception
            if observer not in self._warned:
                self._warned.add(observer)
                reason = " ".join(str(error).split())[:200] or type(error).__name__
                self._warn(f"{observer} failed: {reason}; the run goes on")


class Output:
    """Standard output as a file that neither fails nor waits for ever: it may be closed, full, gone, stopped,
    or unable to say a character. The first time that text is lost, a line on standard error says so.
    """

    def __init__(self) -> None:
        self._file, self._lost = sys.stdout, False

    @property
    def encoding(self) -> str:
        """Which characters it can say."""
        return getattr(self._file, "encoding", None) or "utf-8"

    def isatty(self) -> bool:
        """Whether it is a terminal."""
        try:
            return self._file is not None and self._file.isatty()
        except ValueError:  # closed
            return False

    def write(self, text: str) -> int:
        """Writes what can be written, at once."""
        reason = write_now(self._file, text, 0 if self._lost else _PATIENCE)
        if reason and not self._lost:
            self._lost = True
            warn(f"standard output cannot be written: {reason}; the run goes on")
        return len(text)

    def flush(self) -> None:
        """Nothing is held back."""

    def say(self, text: str) -> None:
        """Prints a line."""
        self.write(f"{text}\n")


def warn(text: str) -> None:
    """A line on standard error, where it can be written."""
    write_now(sys.stderr, f"warning: {text}\n", _PATIENCE)


def write_now(file: TextIO | None, text: str, patience: int) -> str:
    """Writes a text to an output of the process; gives why a part of it could not be written, or "".

    Args:
        file: None, which an output is that was closed before the process began, takes all.
        text: characters that the file cannot say are written as escapes.
        patience: milliseconds to wait for somebody to read.
    """
    if file is None:
        return ""
    try:
        encoding = file.encoding or "utf-8"
        content = text.encode(encoding, "backslashreplace")
        if file not in (sys.__stdout__, sys.__stderr__):
            file.write(content.decode(encoding))
            file.flush()
            return ""
        # Past the buffer: what it could not write would stay there, and fail again at the process's end.
        if file is sys.__stdout__:
            file.flush()
        descriptor, ready = file.fileno(), select.poll()
        ready.register(descriptor, select.POLLOUT)
        while content:
            if not ready.poll(patience):
                return "nobody reads it"
            content = content[os.write(descriptor, content[:_AT_ONCE]) :]
    except (OSError, ValueError) as error:
        return getattr(error, "strerror", None) or str(error)
    return ""
