"""JAX's cache of compiled programs, with a checksum over what goes in, so that XLA meets nothing else.

JAX keeps programs as they are, and XLA runs them as machine code: a damaged one ends in warnings, or ends the
process, at every start anew. Here an entry is JAX's own, with a digest of its key and content behind it, and
a mark stands beside it while XLA reads it. An entry that is damaged, exchanged, of another origin, or one at
which a process ended, is made anew.
"""

import atexit
import hashlib
import importlib.abc
import importlib.machinery
import importlib.util
import os
import socket
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import Any

_MODULE = "jax._src.compilation_cache"  # JAX has no public way to a cache of one's own
_READ = "/jax/compilation_cache/cache_retrieval_time_sec"  # what JAX says when a program was read
_DIGEST = hashlib.sha256().digest_size


def check_programs() -> None:
    """Let JAX's cache go through here once JAX is imported, which may be never; nothing if it was before."""
    if _MODULE not in sys.modules and not any(isinstance(finder, _WhenImported) for finder in sys.meta_path):
        sys.meta_path.insert(0, _WhenImported())


def sealed(key: str, program: bytes) -> bytes:
    """Return an entry as it lies on disk. What stands behind a compressed program JAX itself passes over."""
    return program + hashlib.sha256(key.encode() + b"\0" + program).digest()


def unsealed(key: str, entry: bytes) -> bytes | None:
    """Return the program that was sealed under this key, or None."""
    program = entry[:-_DIGEST]
    return program if sealed(key, program) == entry else None


class CheckedCache:
    """One of JAX's caches, of which it asks `get` and `put`; neither raises for what the disk says."""

    def __init__(self, kept: Any, folder: Path | None):
        """
        Args:
            kept: JAX's own cache, which reads and writes.
            folder: where its entries are, if that is on this machine.
        """
        self._kept, self._folder, self._path = kept, folder, kept._path
        self._reading = threading.local()  # Programs are read in more than one thread.
        self._marks: set[Path] = set()
        atexit.register(self._clear_all)

    def get(self, key: str) -> bytes | None:
        """Return the program of this key if there is a sound one. It is marked as being read until `done`."""
        self.done()
        mark = self._folder and self._folder / f"{key}-reading"
        if mark and _left_behind(mark):
            self._forget(key, mark)
            return None
        entry = None
        with suppress(OSError):
            entry = self._kept.get(key)
        if entry is None:
            return None
        program = unsealed(key, entry)
        if program is None:
            self._forget(key, mark)
        elif mark:
            self._begin(mark)
        return program

    def put(self, key: str, value: bytes) -> None:
        """Keep a program, in place of one that JAX found it could not use."""
        self.done()
        if self._folder:
            self._forget(key, None)
        with suppress(OSError):
            self._kept.put(key, sealed(key, value))

    def done(self, event: str = _READ, duration_secs: float = 0, **_: Any) -> None:
        """Note that the program which this thread asked for last was read; takes JAX's notices, too."""
        mark = getattr(self._reading, "mark", None)
        if event == _READ and mark is not None:
            self._reading.mark = None
            self._clear(mark)

    def _begin(self, mark: Path) -> None:
        with suppress(OSError):
            mark.write_text(f"{os.getpid()} {socket.gethostname()}", encoding="utf-8")
            self._marks.add(mark)
            self._reading.mark = mark

    def _forget(self, key: str, mark: Path | None) -> None:
        for path in (mark, self._folder and self._folder / f"{key}-cache"):
            if path:
                with suppress(OSError):
                    path.unlink()

    def _clear(self, mark: Path) -> None:
        self._marks.discard(mark)
        with suppress(OSError):
            mark.unlink()

    def _clear_all(self) -> None:
        for mark in list(self._marks):
            self._clear(mark)


def _left_behind(mark: Path) -> bool:
    """Whether a mark is of a process that is no more."""
    try:
        process, host = mark.read_text(encoding="utf-8").split(" ", 1)
        os.kill(int(process), 0)
    except FileNotFoundError:
        return False
    except PermissionError:  # somebody's process
        return False
    except (OSError, ValueError, OverflowError):
        return True
    return host != socket.gethostname()


class _WhenImported(importlib.abc.MetaPathFinder):
    """Wait for the module in which JAX makes its cache; importing JAX takes more time than --help may."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname != _MODULE:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def exec_module(module: ModuleType) -> None:
                execute(module)
                _put_between(module)

            spec.loader.exec_module = exec_module  # pyright: ignore[reportAttributeAccessIssue]
        return spec


def _put_between(module: Any) -> None:
    """Makes JAX's maker of caches give a checked one."""
    make = module.get_file_cache

    def get_file_cache(path: str) -> tuple[CheckedCache, str] | None:
        import jax.monitoring

        try:
            made = make(path)
        except OSError:  # JAX makes the folder, which may not be possible: then nothing is kept.
            return None
        if made is None:
            return None
        cache = CheckedCache(made[0], None if "://" in path else Path(path))
        jax.monitoring.register_event_duration_secs_listener(cache.done)
        return cache, made[1]

    module.get_file_cache = get_file_cache
