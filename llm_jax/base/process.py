"""This process: its own clock, and its end."""

import atexit
import os
import signal
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

_IMPORTED = time.monotonic()


def seconds_since_start() -> float:
    """Return seconds since this process was started, the interpreter's own start included.

    Where there is no /proc (macOS), since this module was imported, which is some hundredths of a second
    less.
    """
    try:
        # The 22nd field; the name in parentheses before it may itself hold spaces.
        fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
        return time.clock_gettime(time.CLOCK_BOOTTIME) - int(fields[19]) / os.sysconf("SC_CLK_TCK")
    except (OSError, AttributeError, ValueError, IndexError):
        return time.monotonic() - _IMPORTED


def leave(status: int) -> NoReturn:
    """End the process with an exit status, also where a save that failed has left threads of orbax waiting
    for each other: Python would wait for them, which can take twenty minutes. A Ctrl-C that comes while the
    interpreter goes ends it at once, without a traceback.
    """
    atexit.register(signal.signal, signal.SIGINT, signal.SIG_DFL)
    if any(type(thread).__module__.startswith("orbax.") for thread in threading.enumerate()):
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):
                stream.flush()
        os._exit(status)
    sys.exit(status)
