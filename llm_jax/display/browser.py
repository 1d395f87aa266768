"""A page in the browser of whoever asked for it, where there is one."""

import os
import subprocess
import sys
import webbrowser
from collections.abc import Callable
from pathlib import Path
from threading import Thread


def open_page(path: Path, report: Callable[[str], None]) -> None:
    """Open a page in a browser beside this process, which waits for none; where there is none, say so.

    Args:
        path: the page.
        report: gets a line where it could not be opened.
    """
    if not _has_browser():
        report(f"no browser here: open {path.resolve()} in one")
        return
    # A process of its own: one that reads no terminal, writes none, and outlives no signal of ours.
    words = [sys.executable, "-m", "webbrowser", path.resolve().as_uri()]
    nowhere = subprocess.DEVNULL
    try:
        opened = subprocess.Popen(
            words, stdin=nowhere, stdout=nowhere, stderr=nowhere, start_new_session=True
        )
    except OSError as error:
        report(f"no browser could be opened ({error.strerror}): open {path.resolve()} in one")
        return
    Thread(target=opened.wait, daemon=True).start()


def _has_browser() -> bool:
    """Whether there is a browser with a window: those of a terminal would need the one that we write to."""
    shows = sys.platform == "darwin" or any(
        os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER")
    )
    try:
        return shows and webbrowser.get() is not None
    except webbrowser.Error:
        return False
