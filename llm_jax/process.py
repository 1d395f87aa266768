"""This process's own clock."""

import os
import time
from pathlib import Path

_IMPORTED = time.monotonic()


def seconds_since_start() -> float:
    """Seconds since this process was started, the interpreter's own start included.

    Where there is no /proc (macOS), since this module was imported, which is some hundredths of a second
    less.
    """
    try:
        # The 22nd field; the name in parentheses before it may itself hold spaces.
        fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
        return time.clock_gettime(time.CLOCK_BOOTTIME) - int(fields[19]) / os.sysconf("SC_CLK_TCK")
    except (OSError, AttributeError, ValueError, IndexError):
        return time.monotonic() - _IMPORTED
