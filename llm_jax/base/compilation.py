"""Compiled programs: kept between processes, and the time that making them takes."""

import hashlib
import os
import platform
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from llm_jax.base.checked_programs import check_programs

_LARGEST_CACHE = 2**30  # bytes when a process starts


def keep_compiled_programs() -> None:
    """Let JAX find again what an earlier process compiled, in a folder that only this user can write to.

    Goes through JAX's own environment variables, which it reads when it is first imported; those that are
    already set stay (JAX_ENABLE_COMPILATION_CACHE=0 switches it off). Programs are native code, so each kind
    of processor has a folder of its own, should several machines share a home. In whatever folder, what comes
    out is what went in (`checked_programs`). Never raises: without a folder all works, but nothing is kept.
    """
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        folder = _own_folder()
        if folder is None:
            return
        os.environ["JAX_COMPILATION_CACHE_DIR"] = str(folder)
        make_room(folder, _LARGEST_CACHE)
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
    check_programs()


def _own_folder() -> Path | None:
    """Where this user's programs are, or None where there is no such place, or somebody else could have put a
    program there.
    """
    try:
        home = Path(os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser())
        folder = home.absolute() / "llm_jax" / f"compiled-{_processor()}"
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = folder.stat()
    except (OSError, RuntimeError, ValueError):  # RuntimeError: nobody knows where this user's home is.
        return None
    if hasattr(os, "getuid") and (found.st_uid != os.getuid() or found.st_mode & 0o022):
        return None
    return folder


def make_room(folder: Path, most: int) -> None:
    """Remove the files, those in folders below too, that were not read for longest until the others have
    `most` bytes together; what cannot be looked at or removed stays.

    Once a process: JAX's own limit reads a file for every program there is whenever it keeps another, which
    in a folder of 1,600 programs takes longer than to compile most of them.
    """
    files = sorted(_files(folder))
    size = sum(file[1] for file in files)
    for _, of_file, path in files:
        if size <= most:
            return
        with suppress(OSError):  # Another process makes room, too, or the file is not ours.
            os.unlink(path)
            size -= of_file


def _files(folder: Path) -> Iterator[tuple[int, int, str]]:
    """(time of last reading, bytes, path) of all below a folder; links are not followed."""
    for place, _, names in os.walk(folder):  # which passes over what it cannot read
        for name in names:
            path = os.path.join(place, name)
            with suppress(OSError):
                found = os.stat(path, follow_symlinks=False)
                yield found.st_atime_ns, found.st_size, path


def _processor() -> str:
    """A short name for this kind of processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError):
        lines = []
    features = sorted({line for line in lines if line.startswith(("flags", "Features"))})
    kind = "\n".join([platform.machine(), platform.processor(), *features])
    return hashlib.sha256(kind.encode()).hexdigest()[:12]


class CompileTime:
    """How long this process has traced, compiled, or fetched compiled programs since it began to count."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.programs = 0
        self._lock = threading.Lock()  # Programs are made in more than one thread.

    def note(self, event: str, duration_secs: float, **_: str | int) -> None:
        """Take in one of JAX's durations; only those of making programs count."""
        if event.startswith("/jax/core/compile/"):
            with self._lock:
                self.seconds += duration_secs
                self.programs += event.endswith("/backend_compile_duration")


@contextmanager
def compile_time() -> Iterator[CompileTime]:
    """Count until the end of the block."""
    import jax.monitoring

    counted = CompileTime()
    jax.monitoring.register_event_duration_secs_listener(counted.note)
    try:
        yield counted
    finally:
        jax.monitoring.unregister_event_duration_listener(counted.note)
