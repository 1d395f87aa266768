"""What cannot be read is not damage: nothing is renamed, nothing begins anew, and the error is status 4."""

import builtins
import errno
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import pytest

import llm_jax
from llm_jax.base.errors import CheckpointError
from llm_jax.checkpoints import step_files, step_folder
from llm_jax.checkpoints.reader import (
    read_about,
    read_before,
    read_digest,
    read_params,
    read_restored,
    read_state,
    verify_steps,
)
from llm_jax.checkpoints.writer import Checkpoints
from tests.support.checkpoints import ABOUT, a_state, abstract, restored_step, save_three

PARAMS = abstract(a_state()["params"])
READERS: dict[str, Callable[[Path], Any]] = {
    "params": lambda folder: read_params(folder, PARAMS),
    "whole": lambda folder: read_restored(folder, abstract(a_state())),
    "nested": read_state,
    "before": lambda folder: read_before(folder, abstract(a_state()), 3, print),
    "training": restored_step,
}
OF_THE_MANIFEST: dict[str, Callable[[Path], Any]] = {
    "about": read_about,
    "digest": lambda folder: read_digest(folder, "params", 3),
    **READERS,
}
FAILURES = {
    "threads": RuntimeError("can't start new thread"),
    "memory": MemoryError(),
    "tensorstore's memory": ValueError("RESOURCE_EXHAUSTED: out of memory"),
    "file system": OSError("Input/output error"),
    "never seen before": ZeroDivisionError("something new"),
}


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Steps 1, 2 and 3, which nothing here may change."""
    return save_three(tmp_path_factory.mktemp("saved"))


def names(folder: Path) -> list[str]:
    return sorted(str(path) for path in folder.rglob("*"))


def fails(error: BaseException) -> Callable[..., Any]:
    def fail(*_: Any, **__: Any) -> Any:
        raise error

    return fail


def require_unread(read: Callable[[Path], Any], folder: Path) -> str:
    """Reads in vain; gives the error's message."""
    before = names(folder)
    with pytest.raises(CheckpointError) as refused:
        read(folder)
    assert names(folder) == before
    assert "could not be read" in str(refused.value)
    return str(refused.value)


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("name", FAILURES)
def test_whatever_fails_in_orbax_is_no_damage_where_every_file_is_sound(
    saved: Path, monkeypatch: pytest.MonkeyPatch, reader: str, name: str
) -> None:
    monkeypatch.setattr(step_folder.ocp, "load_checkpointables", fails(FAILURES[name]))
    assert str(FAILURES[name]).split(":")[0] in require_unread(READERS[reader], saved)


def test_a_device_without_memory_for_checksums_is_no_damage(
    saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(step_folder, "checksums", fails(jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED")))
    assert "RESOURCE_EXHAUSTED" in require_unread(restored_step, saved)


@pytest.mark.parametrize("number", [errno.EACCES, errno.EIO, errno.ENOMEM, errno.ESTALE, errno.EMFILE])
@pytest.mark.parametrize("reader", OF_THE_MANIFEST)
def test_a_manifest_that_cannot_be_opened_is_no_damage(
    saved: Path, monkeypatch: pytest.MonkeyPatch, reader: str, number: int
) -> None:
    refuse_to_open(monkeypatch, "_strings.json", OSError(number, os.strerror(number)))
    assert os.strerror(number) in require_unread(OF_THE_MANIFEST[reader], saved)


@pytest.mark.parametrize("number", [errno.EACCES, errno.EIO])
def test_a_file_of_arrays_that_cannot_be_opened_is_no_damage(
    saved: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """As orbax, which reads without Python, would fail on it too."""
    monkeypatch.setattr(step_folder.ocp, "load_checkpointables", fails(ValueError("PERMISSION_DENIED")))
    refuse_to_open(monkeypatch, "manifest.ocdbt", OSError(number, os.strerror(number)))
    for read in READERS.values():
        assert os.strerror(number) in require_unread(read, saved)
    assert os.strerror(number) in verify_steps(saved)[0].fault


def refuse_to_open(monkeypatch: pytest.MonkeyPatch, name: str, error: OSError) -> None:
    """Every opening of a file with this name in `step_files` fails."""

    def opened(path: Any, *words: Any) -> Any:
        if Path(path).name == name:
            raise error
        return builtins.open(path, *words)

    monkeypatch.setattr(step_files, "open", opened, raising=False)


def test_a_folder_of_steps_that_cannot_be_listed_is_no_empty_one(
    saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(step_files.os, "scandir", fails(PermissionError(errno.EACCES, "Permission denied")))
    for read in [*OF_THE_MANIFEST.values(), verify_steps]:
        with pytest.raises(CheckpointError, match="Permission denied"):
            read(saved)


LIMITED = """
import os, resource, sys
from pathlib import Path
import jax
from jax import ShapeDtypeStruct
from llm_jax.checkpoints.writer import Checkpoints
checkpoints = Checkpoints(Path(sys.argv[1]), keep=2, about={})
kernel, bias = (ShapeDtypeStruct(shape, "float32") for shape in ((16, 8), (8,)))
wanted = {"params": {"a": {"kernel": kernel}, "b": bias}}
if sys.argv[2] == "memory":
    jax.block_until_ready(jax.numpy.zeros(1))
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * os.sysconf("SC_PAGESIZE") + (4 << 20)
    resource.setrlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))
try:
    print(checkpoints.restore(wanted))
except Exception as error:
    resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    print(type(error).__name__, error)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="RLIMIT_AS and /proc")
@pytest.mark.parametrize(
    ("limit", "platform", "reason"),
    [
        ("memory", "cpu", "can't start new thread"),
        ("no limit", "cuda", "JAX_PLATFORMS is cuda"),
        ("no limit", "nonsense", "JAX_PLATFORMS is nonsense"),
    ],
)
def test_a_process_without_threads_or_device_renames_nothing(
    saved: Path, limit: str, platform: str, reason: str
) -> None:
    before = names(saved)
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(saved), limit],
        capture_output=True,
        text=True,
        timeout=120,
        env=os.environ | {"JAX_PLATFORMS": platform},
    )
    assert done.stdout.startswith(f"CheckpointError {saved / '3'} could not be read"), done
    assert reason in done.stdout
    assert names(saved) == before
    assert restored_step(saved) == 3


def test_a_run_whose_checkpoints_are_all_set_aside_does_not_begin_anew(saved: Path, tmp_path: Path) -> None:
    saved = Path(shutil.copytree(saved, tmp_path / "checkpoints"))
    for step in saved.glob("[0-9]*"):
        shutil.rmtree(step / "params")
    for _ in range(2):  # When it finds them so, and when it finds them set aside.
        with (
            Checkpoints(saved, keep=2, about=ABOUT, report=lambda _: None) as checkpoints,
            pytest.raises(CheckpointError, match=r"3 checkpoints and none is undamaged.*rejected-3-0"),
        ):
            checkpoints.restore(abstract(a_state()))
    with (
        Checkpoints(saved, keep=2, about=ABOUT) as checkpoints,
        pytest.raises(CheckpointError, match="does not begin anew"),
    ):
        checkpoints.latest_step()


def test_a_run_that_was_trained_and_has_no_checkpoint_does_not_begin_anew(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text(json.dumps({"step": 0}) + "\n")
    with Checkpoints(tmp_path / "checkpoints", keep=2, about=ABOUT) as checkpoints:
        assert checkpoints.latest_step() is None
    (tmp_path / "metrics.jsonl").write_text(json.dumps({"step": 7, "train_loss": 1.0}) + "\n")
    with (
        Checkpoints(tmp_path / "checkpoints", keep=2, about=ABOUT) as checkpoints,
        pytest.raises(CheckpointError, match=r"trained to step 7 and .* has no checkpoint"),
    ):
        checkpoints.latest_step()


def test_a_step_without_a_list_of_its_files_is_no_damage_when_it_cannot_be_read(
    saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def without_files(path: Path) -> dict[str, Any]:
        manifest = step_files.open_manifest(path)
        del manifest["files"]
        return manifest

    monkeypatch.setattr(step_folder, "open_manifest", without_files)
    assert llm_jax.checkpoints.reader.read_params(saved, PARAMS)[1]["step"] == 3
    monkeypatch.setattr(step_folder.ocp, "load_checkpointables", fails(RuntimeError("no thread")))
    before = names(saved)
    with pytest.raises(CheckpointError, match="cannot be told"):
        restored_step(saved)
    assert names(saved) == before
