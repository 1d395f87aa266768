"""The one place through which all that a command says goes.

Standard output and standard error become streams to which writing never fails: what it means that one is
closed, full, or cannot spell a character is settled here, and no work depends on being shown. What is said
with texts and names in it (`say`, `remark`, `console`) has no control characters, so that no text can steer a
terminal. A text that is the product itself (`write`) stays exact wherever it is not a terminal that reads it.
"""

import errno
import io
import os
import re
import select
import stat
import sys
from collections.abc import Iterable
from contextlib import suppress
from typing import Any, TextIO

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from llm_jax.base import strict_json
from llm_jax.base.errors import INPUT_OUTPUT

_PATIENCE = 2000  # milliseconds that a reader may keep a run waiting before what it does not read is dropped
_AT_ONCE = 512  # bytes that a pipe takes without waiting when it says that it takes any
_LEAST_COLUMNS = 40  # of a terminal that says it has fewer, or none
# C0 but tab and line feed, DEL, C1, and what turns the direction of a line around.
_STEERING = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
_NOBODY_READS = {errno.EPIPE, errno.EBADF, errno.ECONNRESET, errno.ENXIO}
_SPELLS_ALL = {"replace", "ignore", "backslashreplace", "xmlcharrefreplace", "namereplace"}


class OutputGone(Exception):
    """Nobody reads standard output any more, or it is full: what a command makes for it is in vain."""


class _Descriptor(io.RawIOBase):
    """A file descriptor to which writing never fails: what goes wrong is noted, and the rest thrown away."""

    def __init__(self, raw: Any):
        self._raw = raw
        self.failure: OSError | None = None
        self.only_shows = False
        self.wants_json = False
        self._is_device = False
        with suppress(OSError):
            self._is_device = stat.S_ISCHR(os.fstat(raw.fileno()).st_mode)

    def write(self, data: Any, /) -> int:
        piece = memoryview(data).cast("B")
        try:
            if self.only_shows:
                piece = piece[:_AT_ONCE]
                if not _takes(self.fileno(), _PATIENCE):
                    raise OSError(errno.EAGAIN, "nobody reads it")
            while (count := self._raw.write(piece)) is None:  # A pipe that is full and does not wait.
                select.select([], [self.fileno()], [])
        except OSError as error:
            self.failure = self.failure or error
            _to_nowhere(self.fileno())  # so that libraries that have the descriptor do not fail either
            if self.only_shows and self.fileno() == 1:
                remark(
                    f"warning: standard output cannot be written: {error.strerror}; the run goes on", "yellow"
                )
            return memoryview(data).nbytes
        return count

    def lost(self) -> str | None:
        """Return why a reader did not get everything; None where all was written, or the reader had left."""
        if self.failure is None or self.only_shows or self.failure.errno in _NOBODY_READS:
            return None
        gone = self.failure.errno == errno.EIO and self._is_device  # a terminal that hung up
        return None if gone else self.failure.strerror

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._raw.fileno()

    def isatty(self) -> bool:
        return self._raw.isatty()


def open_output(*, json: bool = False) -> None:
    """Make the process's standard streams ones that never fail; what a caller put in their place stays.

    Args:
        json: whether `say_result` prints on a terminal, too.
    """
    if sys.stdin is None:
        _to_nowhere(0)
        sys.stdin = open(os.devnull, encoding="utf-8")  # noqa: SIM115 - as long as the process
    if sys.stdout is None or sys.stdout is sys.__stdout__:
        sys.stdout = _stream(sys.stdout, 1)
    if sys.stderr is None or sys.stderr is sys.__stderr__:
        sys.stderr = _stream(sys.stderr, 2)
    if descriptor := _descriptor(sys.stdout):
        descriptor.wants_json = descriptor.wants_json or json


def only_show() -> None:
    """From here on what is said is shown to whoever looks, and is no part of what the command makes: losing
    it is one warning and no failure, and a reader that reads nothing keeps nobody waiting.
    """
    for stream in (sys.stdout, sys.stderr):
        if descriptor := _descriptor(stream):
            descriptor.only_shows = True


def close_output(status: int) -> int:
    """Return the exit status of a process that would end with `status`; say so where its output was lost.

    A reader that left, as `head` does, and an output that was closed from the beginning are no failure; one
    that is full is.
    """
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    descriptor = _descriptor(sys.stdout)
    if descriptor is None or (reason := descriptor.lost()) is None:
        return status
    remark(f"error: standard output could not be written: {reason}", style="bold red")
    return status or INPUT_OUTPUT


def visible(text: str) -> str:
    """Return the text with its control characters, and those that turn its direction, spelt out as
    `\\x1b`.
    """
    return _STEERING.sub(lambda found: ascii(found[0])[1:-1], text)


def say(text: str = "") -> None:
    """Print a line, or several, for a person."""
    print(visible(text), flush=True)


def say_json(value: Any, *, ensure_ascii: bool = True) -> None:
    """Print a value as a line of JSON for a program; exact, and without control characters all the same.

    Args:
        value: plain values; numbers that are not finite become null.
        ensure_ascii: whether letters beyond ASCII are spelt out where the output could take them.
    """
    encoding = getattr(sys.stdout, "encoding", None) or ""
    ensure_ascii = ensure_ascii or not encoding.lower().startswith("utf")
    line = strict_json.dumps(value, ensure_ascii=ensure_ascii, default=str)
    print(_STEERING.sub(lambda found: f"\\u{ord(found[0]):04x}", line), flush=True)


def say_result(value: Any) -> None:
    """Print what a command found as a line of JSON, unless it would stand on a terminal that did not ask."""
    if wants_json():
        say_json(value)


def wants_json() -> bool:
    """Return whether lines of JSON are wanted: --json was given, or nobody looks at standard output."""
    descriptor = _descriptor(sys.stdout)
    return not sys.stdout.isatty() or bool(descriptor and descriptor.wants_json)


def write(text: str) -> None:
    """Write a text that is a command's product: exact, except to a terminal, which it must not steer.

    Raises:
        OutputGone: it can reach nobody.
    """
    sys.stdout.write(visible(text) if sys.stdout.isatty() else text)
    sys.stdout.flush()
    descriptor = _descriptor(sys.stdout)
    if descriptor and descriptor.failure:
        raise OutputGone


def remark(text: str, style: str = "dim") -> None:
    """Print a line on standard error, beside what a command makes."""
    console(stderr=True).print(Text(visible(text), style), soft_wrap=True)


def tell_at_once(text: str) -> None:
    """Write to standard error past all that may hold a lock on it, and without waiting for its reader."""
    with suppress(OSError):
        if _takes(2, 0):
            os.write(2, text.encode("utf-8", "backslashreplace"))


def console(*, stderr: bool = False, width: int | None = None) -> Console:
    """Return where tables and other figures of rich are printed: a text in them is text, and no markup.

    Args:
        stderr: whether they go to standard error.
        width: columns where no terminal, nor $COLUMNS, says how many there are.
    """
    if (sys.stderr if stderr else sys.stdout).isatty() or os.environ.get("COLUMNS"):
        width = None
    return _Console(stderr=stderr, width=width, markup=False, emoji=False, highlight=False)


class _Console(Console):
    """rich's, for texts that nobody has looked at, and for terminals of any width."""

    def __init__(self, **form: Any):
        super().__init__(**form)
        if self.width < _LEAST_COLUMNS:
            self.width = _LEAST_COLUMNS

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            text, style, control = segment
            yield segment if control else Segment(visible(text), style)


def _stream(given: TextIO | None, number: int) -> TextIO:
    """A stream like the one given, with a descriptor under it that never fails."""
    if given is None:
        _to_nowhere(number)
        nowhere = _Descriptor(io.FileIO(number, "w", closefd=False))
        nowhere.failure = OSError(errno.EBADF, os.strerror(errno.EBADF))
        return io.TextIOWrapper(io.BufferedWriter(nowhere), encoding="utf-8", errors="backslashreplace")
    with suppress(OSError, ValueError):
        given.flush()
    buffer: Any = given.buffer
    errors = given.errors if given.errors in _SPELLS_ALL else "backslashreplace"
    return io.TextIOWrapper(
        io.BufferedWriter(_Descriptor(getattr(buffer, "raw", buffer))),
        encoding=given.encoding,
        errors=errors,
        newline="\n",
        line_buffering=number == 2 or given.isatty(),
        write_through=getattr(given, "write_through", False),
    )


def _descriptor(stream: Any) -> _Descriptor | None:
    raw = getattr(getattr(stream, "buffer", None), "raw", None)
    return raw if isinstance(raw, _Descriptor) else None


def _takes(number: int, patience: int) -> bool:
    """Whether a descriptor takes what is written, within so many milliseconds."""
    ready = select.poll()
    ready.register(number, select.POLLOUT)
    return bool(ready.poll(patience))


def _to_nowhere(number: int) -> None:
    """Lets a descriptor lead to nowhere, so that no file that is opened later gets its number."""
    with suppress(OSError):
        nowhere = os.open(os.devnull, os.O_RDWR)
        if nowhere != number:
            os.dup2(nowhere, number)
            os.close(nowhere)
        os.set_inheritable(number, True)
