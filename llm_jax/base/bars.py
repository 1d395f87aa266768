"""Bars of how far a long work is, on standard error where that is a terminal; one at a time."""

import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Sized
from contextlib import contextmanager, suppress
from typing import TypeVar

from llm_jax.base.terminal import console

_Item = TypeVar("_Item")
_TAKEN = threading.Lock()  # by the one figure that moves: two would write over one another


@contextmanager
def alone() -> Iterator[bool]:
    """Yield whether nothing else moves on the terminal; until the block ends, nothing else will."""
    free = _TAKEN.acquire(blocking=False)
    try:
        yield free
    finally:
        if free:
            _TAKEN.release()


@contextmanager
def shown(what: str, total: float | None = None) -> Iterator[Callable[[float], None]]:
    """Show on a terminal that a long work goes on, and how far it is; the work never fails by that.

    Args:
        what: is done.
        total: all that there is to do, if that is known.

    Yields:
        A function that is told how much more was done.
    """
    from rich.progress import Progress

    with alone() as free:
        shown_on = console(stderr=True)
        bar = Progress(
            console=shown_on,
            transient=True,
            disable=not (free and shown_on.is_terminal),
            redirect_stdout=sys.stdout.isatty(),  # what is said goes above the bar, but never out of a pipe
        )
        task = bar.add_task(what, total=total)
        with suppress(OSError, ValueError):
            bar.start()
        try:
            yield lambda more: bar.update(task, advance=more)
        finally:
            with suppress(OSError, ValueError):
                bar.stop()


def tracked(items: Iterable[_Item], what: str, total: int | None = None) -> Iterator[_Item]:
    """Return the same items, with a bar of how many are done."""
    count = len(items) if total is None and isinstance(items, Sized) else total
    with shown(what, count) as told:
        for item in items:
            yield item
            told(1)
