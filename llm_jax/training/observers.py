"""What shows or records a run never decides whether it lives, be it the terminal, metrics, samples, trackers,
pictures or reports: `Guard` is the one way in which such a thing fails. What may also be slow, or hang, is
called `Beside` the run.
"""

import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from llm_jax.base import terminal

# Seconds in which an observer must have done one more call, once a run has ended.
_PATIENCE = 60.0
_MOST_WAITING = 1000  # calls that it has not come to yet


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


class Beside:
    """Calls an observer in a thread of its own, one call after the other, and never waits for it while the
    run goes on: one that fails is a warning, and one that hangs, or falls too far behind, is left behind.

    Args:
        observer: its name, for the warning.
        warn: gets a line.
    """

    def __init__(self, observer: str, warn: Callable[[str], None]):
        self._observer, self._warn, self._guard = observer, warn, Guard(warn)
        self._waiting: queue.Queue[Callable[[], Any]] = queue.Queue(_MOST_WAITING)
        self._done, self._left_behind = 0, False
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._work, name=observer, daemon=True)
        self._thread.start()

    def __call__(self, call: Callable[[], Any]) -> None:
        """Let this be called, some time after all calls before it."""
        if not self._left_behind:
            try:
                self._waiting.put_nowait(call)
            except queue.Full:
                self._leave_behind()

    def close(self) -> None:
        """Wait for the calls that are left, as long as one after the other is done."""
        self._closing.set()
        while not self._left_behind and self._thread.is_alive():
            before = self._done
            self._thread.join(_PATIENCE)
            if self._thread.is_alive() and self._done == before and self._waiting.unfinished_tasks:
                self._leave_behind()

    def _leave_behind(self) -> None:
        self._left_behind = True
        self._warn(f"{self._observer} does not keep up and is left out from here on; the run goes on")

    def _work(self) -> None:
        while not (self._left_behind or (self._closing.is_set() and self._waiting.empty())):
            try:
                call = self._waiting.get(timeout=0.05)
            except queue.Empty:
                continue
            with self._guard(self._observer):
                try:
                    call()
                except (KeyboardInterrupt, SystemExit, GeneratorExit) as error:
                    raise RuntimeError(type(error).__name__) from error
            self._done += 1
            self._waiting.task_done()


def warn(text: str) -> None:
    """Write a line to standard error."""
    terminal.remark(f"warning: {text}", style="yellow")
