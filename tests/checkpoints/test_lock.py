"""One writer a directory, also where the file system has no locks: a file with a heart-beat."""

import errno
import fcntl
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from llm_jax.base.errors import CheckpointError, UserError
from llm_jax.checkpoints import lock
from llm_jax.checkpoints.lock import DirectoryLock
from llm_jax.checkpoints.writer import Checkpoints
from tests.support.checkpoints import ABOUT, a_state

NAME = ".lock-beating"


@pytest.fixture(params=[errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP])
def no_locks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(request.param, os.strerror(request.param))

    monkeypatch.setattr(fcntl, "flock", refuse)


def a_dead_process() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


@pytest.mark.usefixtures("no_locks")
def test_without_locks_a_second_writer_is_refused_and_told_who_writes(tmp_path: Path) -> None:
    remarks: list[str] = []
    held = DirectoryLock(tmp_path, remarks.append)
    assert len(remarks) == 1
    assert "file system without locks" in remarks[0]
    with pytest.raises(UserError, match=f"is being written by process {os.getpid()} on "):
        DirectoryLock(tmp_path, remarks.append)
    held.require_held()
    held.release()
    DirectoryLock(tmp_path, remarks.append).release()
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]


@pytest.mark.usefixtures("no_locks")
def test_the_lock_of_a_dead_process_is_taken_over(tmp_path: Path) -> None:
    host = lock.socket.gethostname()
    (tmp_path / NAME).write_text(f"process 1 on {host}\n{host} {a_dead_process()}\ntoken\n")
    held = DirectoryLock(tmp_path, lambda _: None)
    held.require_held()
    held.release()


@pytest.mark.parametrize(
    "text", ["process 7 on far\nfar 7\ntoken\n", "", "garbage", "a\nb c\n", "a\nb 1e9\n"]
)
@pytest.mark.parametrize(("age", "free"), [(lock.STALE / 2, False), (lock.STALE * 2, True)])
def test_the_lock_of_another_host_is_taken_over_once_its_heart_has_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, age: float, free: bool
) -> None:
    monkeypatch.setattr(fcntl, "flock", lambda *_: (_ for _ in ()).throw(OSError(errno.ENOSYS, "none")))
    (tmp_path / NAME).write_text(text)
    then = time.time() - age
    os.utime(tmp_path / NAME, (then, then))
    if free:
        DirectoryLock(tmp_path, lambda _: None).release()
    else:
        with pytest.raises(UserError, match="is being written by"):
            DirectoryLock(tmp_path, lambda _: None)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".lock"] + [NAME] * (not free)


@pytest.mark.usefixtures("no_locks")
def test_of_many_that_take_over_one_wins(tmp_path: Path) -> None:
    (tmp_path / NAME).write_text("process 7 on far\nfar 7\ntoken\n")
    os.utime(tmp_path / NAME, (0, 0))
    together = threading.Barrier(8)

    def attempt(_: int) -> DirectoryLock | None:
        together.wait()
        try:
            return DirectoryLock(tmp_path, lambda _: None)
        except UserError:
            return None

    with ThreadPoolExecutor(8) as pool:
        held = [taken for taken in pool.map(attempt, range(8)) if taken]
    assert len(held) == 1
    held[0].require_held()
    held[0].release()
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]


@pytest.mark.usefixtures("no_locks")
def test_a_process_that_died_while_it_took_over_does_not_block_for_ever(tmp_path: Path) -> None:
    for name in (NAME, ".lock-taking"):
        (tmp_path / name).write_text("process 7 on far\nfar 7\ntoken\n")
        os.utime(tmp_path / name, (0, 0))
    with pytest.raises(UserError, match="is being written"):
        DirectoryLock(tmp_path, lambda _: None)
    DirectoryLock(tmp_path, lambda _: None).release()


@pytest.mark.usefixtures("no_locks")
def test_a_writer_whose_lock_was_taken_over_writes_nothing_more(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, keep=2, about=ABOUT, report=lambda _: None)
    checkpoints.save(1, a_state(1), metrics={}, score=None)
    (tmp_path / NAME).write_text("process 7 on far\nfar 7\ntoken\n")
    with pytest.raises(CheckpointError, match="taken over by another process"):
        checkpoints.save(2, a_state(2), metrics={}, score=None)
    checkpoints.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == [".lock", NAME, "1"]


def test_the_heart_beats(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fcntl, "flock", lambda *_: (_ for _ in ()).throw(OSError(errno.ENOLCK, "none")))
    monkeypatch.setattr(lock, "BEAT", 0.01)
    held = DirectoryLock(tmp_path, lambda _: None)
    os.utime(tmp_path / NAME, (0, 0))
    while not (tmp_path / NAME).stat().st_mtime:
        time.sleep(0.01)
    held.release()


def test_another_failure_to_lock_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fcntl, "flock", lambda *_: (_ for _ in ()).throw(OSError(errno.EIO, "broken")))
    with pytest.raises(CheckpointError, match="could not be locked: broken"):
        DirectoryLock(tmp_path)


def test_a_directory_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="must be a directory that can be written"):
        Checkpoints(tmp_path / "file" / "checkpoints", keep=2, about=ABOUT)
