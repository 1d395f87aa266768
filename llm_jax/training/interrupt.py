"""Signals that ask a process to end: heard at once, whatever it does, and acted on where nothing is lost.

Python runs a handler only between its own instructions, and a compilation keeps it from that for seconds or
minutes. So the operating system writes each signal into a pipe, too, at whose other end a thread answers it.
"""

import _thread
import contextlib
import math
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

from llm_jax.base.errors import InterruptedAndSaved
from llm_jax.base.terminal import tell_at_once

# Ctrl-C; a scheduler or `kill`; a terminal that is closed; Slurm's warning before the time is over.
_ASKING = ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1")
BEFORE_FIRST_STEP = " before the first step. Run the same command to begin."
_AT_ONCE = 0.3  # seconds in which what is interrupted needs no word about it
_AFTERWARDS = 0.05  # seconds after which a finalizer is mostly over


class Stopped(SystemExit):
    """Raised where a signal other than Ctrl-C came and there was nothing to save; says which."""

    def __init__(self, name: str):
        self.name, self.exit_status = name, 128 + signal.Signals[name]
        super().__init__(self.exit_status)


def stopped(name: str, then: str) -> str:
    """Return the line that ends a process which a signal asked to stop.

    Args:
        name: the signal's, of which Ctrl-C need not be told.
        then: what is saved, and how to go on.
    """
    return f"Stopped{'' if name == 'SIGINT' else f' by {name}'}{then}"


@contextmanager
def stop_requests(
    finishing: str = "the step in hand", *, ends_process: bool = True
) -> Iterator[Callable[[], str]]:
    """Within the block signals only make the yielded function give the name of the first one, instead of "";
    a second Ctrl-C ends the process at once.

    Args:
        finishing: what is still done, for the line that acknowledges a signal.
        ends_process: False where the process is somebody else's, such as a notebook's: a second Ctrl-C then
            raises KeyboardInterrupt.
    """
    heard: list[str] = []
    pressed = 0

    def act(number: int, _: object) -> None:
        nonlocal pressed
        pressed += number == signal.SIGINT
        if pressed > 1 and not ends_process:
            raise KeyboardInterrupt

    def note(number: int) -> None:
        name = signal.Signals(number).name
        if name == "SIGINT" and name in heard and ends_process:
            _leave(number)
        _acknowledge(number, finishing)
        heard.append(name)

    with _listening(act, note):
        yield lambda: heard[0] if heard else ""


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """Within the block Ctrl-C raises KeyboardInterrupt and the other signals `Stopped`; while neither can be
    raised, a line says that the signal was heard, and a second Ctrl-C ends the process at once.
    """
    raised_at, unanswered = -math.inf, -math.inf

    def act(number: int, _: object) -> None:
        nonlocal raised_at
        raised_at = time.monotonic()
        if number == signal.SIGINT:
            raise KeyboardInterrupt
        raise Stopped(signal.Signals(number).name)

    def note(number: int) -> None:
        nonlocal unanswered
        came = time.monotonic()
        if number == signal.SIGINT and unanswered > raised_at:
            _leave(number)
        while raised_at < came - _AT_ONCE and time.monotonic() < came + _AT_ONCE:
            time.sleep(0.02)
        if raised_at < came - _AT_ONCE:
            unanswered = came
            _acknowledge(number, "what is in hand")

    with _listening(act, note), _raised_once_more():
        yield


@contextmanager
def _raised_once_more() -> Iterator[None]:
    """Within the block what `act` raises inside a finalizer, which lets no exception through, is raised again
    after it.
    """
    show = sys.unraisablehook

    def again(what: Any) -> None:
        if isinstance(what.exc_value, Stopped):
            number = signal.Signals[what.exc_value.name]
        elif isinstance(what.exc_value, KeyboardInterrupt):
            number = signal.SIGINT
        else:
            return show(what)
        threading.Timer(_AFTERWARDS, _thread.interrupt_main, (number,)).start()

    sys.unraisablehook = again
    try:
        yield
    finally:
        sys.unraisablehook = show


@contextmanager
def _listening(act: Callable[[int, object], None], note: Callable[[int], None]) -> Iterator[None]:
    """Calls `act` with each signal in the main thread, once it can, and `note` in another one at once.

    What the process was started to ignore stays ignored (`nohup`), but for Ctrl-C, which shells ignore for
    any job in the background. Outside the main thread signals are left as they are.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = [getattr(signal, name) for name in _ASKING if hasattr(signal, name)]
    before = {number: signal.getsignal(number) for number in numbers}
    listened = [n for n in numbers if n == signal.SIGINT or before[n] is not signal.SIG_IGN]
    reading, writing = os.pipe()
    os.set_blocking(writing, False)

    def answer() -> None:
        while numbers := os.read(reading, 64):
            for number in numbers:
                if number in listened:
                    note(number)
        os.close(reading)

    threading.Thread(target=answer, name="signals", daemon=True).start()
    wakeup = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    for number in listened:
        signal.signal(number, act)
    try:
        yield
    finally:
        for number in listened:
            signal.signal(number, before[number] or signal.SIG_DFL)
        signal.set_wakeup_fd(wakeup)
        os.close(writing)


def _acknowledge(number: int, finishing: str) -> None:
    """Says that a signal was heard."""
    name, more = ("Ctrl-C", " again") if number == signal.SIGINT else (signal.Signals(number).name, "")
    line = f"{name} heard; stopping after {finishing}; Ctrl-C{more}: at once"
    with contextlib.suppress(OSError):
        # A live line keeps to its own line of the terminal, and is drawn again below.
        start = "\r\x1b[K" if os.isatty(2) else ""
        tell_at_once(f"{start}{line}\n")


def leave_unsaved(message: str, name: str) -> NoReturn:
    """End the process now, in spite of threads that compile, where a signal came and nothing is to be saved:
    with status 130 for Ctrl-C, else with that which asks to be started again.
    """
    tell_at_once(f"{message}\n")
    os._exit(130 if name == "SIGINT" else InterruptedAndSaved.exit_status)


def _leave(number: int) -> None:
    """Ends the process now: what is half written has a temporary name, which the next start removes."""
    with contextlib.suppress(OSError):
        if os.isatty(1):
            os.write(1, b"\x1b[?25h\n")  # the cursor, which a live line hides
    os._exit(128 + number)
