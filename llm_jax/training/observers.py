"""What shows or records a run never decides whether it lives, be it the terminal, metrics, samples, trackers,
pictures or reports: `Guard` is the one way in which such a thing fails.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from llm_jax.base import terminal


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


def warn(text: str) -> None:
    """A line on standard error."""
    terminal.remark(f"warning: {text}", style="yellow")
