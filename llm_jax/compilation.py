"""Compiled programs: kept between processes, and the time that making them takes."""

import hashlib
import os
import platform
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_LARGEST_CACHE = 2**30  # bytes; the programs that were not used for longest go first


def keep_compiled_programs() -> None:
    """Lets JAX find again what an earlier process compiled, in a folder that only this user can write to.

    Goes through JAX's own environment variables, which it reads when it is first imported; those that are
    already set stay (JAX_ENABLE_COMPILATION_CACHE=0 switches it off). Programs are native code, so each kind
    of processor has a folder of its own, should several machines share a home.
    """
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        home = Path(os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser())
        folder = home / "llm_jax" / f"compiled-{_processor()}"
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            found = folder.stat()
        except OSError:  # A home that cannot be written to: everything works, and compiles each time.
            return
        if hasattr(os, "getuid") and (found.st_uid != os.getuid() or found.st_mode & 0o022):
            return  # Somebody else could have put a program there.
        os.environ["JAX_COMPILATION_CACHE_DIR"] = str(folder)
    os.environ.setdefault("JAX_COMPILATION_CACHE_MAX_SIZE", str(_LARGEST_CACHE))
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")


def _processor() -> str:
    """A short name for this kind of processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
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
        """Takes in one of JAX's durations; only those of making programs count."""
        if event.startswith("/jax/core/compile/"):
            with self._lock:
                self.seconds += duration_secs
                self.programs += event.endswith("/backend_compile_duration")


@contextmanager
def compile_time() -> Iterator[CompileTime]:
    """Counts until the end of the block."""
    import jax.monitoring

    counted = CompileTime()
    jax.monitoring.register_event_duration_secs_listener(counted.note)
    try:
        yield counted
    finally:
        jax.monitoring.unregister_event_duration_listener(counted.note)
