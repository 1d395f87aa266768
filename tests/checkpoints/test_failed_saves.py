"""A save that the system stops is one error; nothing of orbax's own shows, not even later."""

import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import jax.numpy as jnp
import pytest
from orbax.checkpoint import v1 as ocp

from llm_jax.checkpoints.step_folder import write_step

# Files may have no more bytes than this: it stops orbax at the array's metadata, or in a thread beside it.
PROGRAM = """
import logging, resource, signal, sys
from pathlib import Path
from types import SimpleNamespace
import jax.numpy as jnp
from llm_jax.checkpoints.step_folder import write_step

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
state = {"params": {str(number): jnp.ones((400, 100)) for number in range(20)}}
for number, most in enumerate((2000, 100)):
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, resource.RLIM_INFINITY))
    try:
        write_step(Path(sys.argv[1], str(number)), state, {})
    except Exception as error:
        print(type(error).__name__)

# What tensorstore's threads say when they end late, which is seldom.
logging.getLogger("asyncio").error("Task exception was never retrieved")
error = RuntimeError("Event loop is closed")
late = SimpleNamespace(exc_type=RuntimeError, exc_value=error, exc_traceback=None)
sys.unraisablehook(late)
"""


def test_the_reason_is_the_saves_own_and_not_that_of_a_thread_which_it_gave_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Late(threading.Thread):
        def join(self, timeout: float | None = None) -> None:
            raise TimeoutError("as orbax's threads do")

    def save(*_: object) -> None:
        Late(target=time.sleep, args=(0.1,)).start()
        raise OSError("no room")

    monkeypatch.setattr(ocp, "save_checkpointables", save)
    with pytest.raises(OSError, match="no room"):
        write_step(tmp_path / "1", {"params": {"a": jnp.ones(3)}}, {})


def test_threads_that_never_end_hold_nobody_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given_up = threading.Event()

    def save(*_: object) -> None:
        for _ in range(20):
            threading.Thread(target=given_up.wait).start()
        raise OSError("no room")

    monkeypatch.setattr(ocp, "save_checkpointables", save)
    began = time.monotonic()
    try:
        with pytest.raises(OSError, match="no room"):
            write_step(tmp_path / "1", {"params": {"a": jnp.ones(3)}}, {})
        assert time.monotonic() - began < 15  # 20 seconds and more, were each waited for by itself
    finally:
        given_up.set()


def test_a_folder_that_cannot_be_written_is_never_handed_to_orbax(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(**_: object) -> None:
        raise PermissionError("read-only")

    def save(*_: object) -> None:
        raise AssertionError("orbax would leave threads behind")

    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
    monkeypatch.setattr(ocp, "save_checkpointables", save)
    with pytest.raises(PermissionError):
        write_step(tmp_path / "1", {"params": {"a": jnp.ones(3)}}, {})


def test_a_save_that_fails_prints_nothing_itself(tmp_path: Path) -> None:
    words = [sys.executable, "-c", PROGRAM, str(tmp_path)]
    environment = os.environ | {"JAX_ENABLE_COMPILATION_CACHE": "false"}  # its files are limited as well
    done = subprocess.run(words, capture_output=True, text=True, env=environment, check=False)
    assert done.stderr == ""
    assert len(done.stdout.split()) == 2
    assert not [name for name in tmp_path.iterdir() if name.name.isdigit()]
