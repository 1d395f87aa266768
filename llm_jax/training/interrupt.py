"""Ctrl-C and SIGTERM as a question that the loop asks between steps."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def stop_requests() -> Iterator[Callable[[], bool]]:
    """Within the block the first SIGINT or SIGTERM only makes the yielded function true; a second one acts at
    once.
    """
    requested = False
    names = (signal.SIGINT, signal.SIGTERM)
    before = {name: signal.getsignal(name) for name in names}

    def restore() -> None:
        for name, handler in before.items():
            signal.signal(name, handler)

    def note(_signal: int, _frame: object) -> None:
        nonlocal requested
        requested = True
        restore()

    for name in names:
        signal.signal(name, note)
    try:
        yield lambda: requested
    finally:
        restore()
