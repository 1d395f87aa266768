"""Promises of checkpoints: exact, verified, one writer, never silent damage, mesh-independent checksums."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from llm_jax.base.errors import CheckpointError, UserError
from llm_jax.checkpoints import step_folder
from llm_jax.checkpoints.checksums import checksums
from llm_jax.checkpoints.reader import read_about, read_params, read_state, verify_steps
from llm_jax.checkpoints.writer import Checkpoints
from tests.support.checkpoints import (
    ABOUT,
    a_state,
    abstract,
    flip_a_bit,
    restored_step,
    same_bits,
    save_three,
)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """Steps 1, 2 and 3, of which 1 has the best score."""
    return save_three(tmp_path)


def test_restored_state_has_the_saved_bits_and_knows_what_it_is(saved: Path) -> None:
    assert restored_step(saved) == 3
    assert same_bits(read_state(saved), a_state(3))
    params, about = read_params(saved, abstract(a_state()["params"]))
    assert same_bits(params, a_state(3)["params"])
    said = {"step": 3, "metrics": {"validation_loss": 0.7}, "score": 0.7, "since_best": 2}
    assert about == ABOUT | said


def test_the_latest_and_the_best_are_kept(tmp_path: Path) -> None:
    with Checkpoints(tmp_path, keep=2, about=ABOUT) as checkpoints:
        for step, score in enumerate([0.9, 0.2, float("nan"), 0.8, None, 0.7]):
            checkpoints.save(step, a_state(step), metrics={}, score=score)
    assert {path.name for path in tmp_path.iterdir()} == {".lock", "1", "4", "5"}


def test_a_score_that_is_not_a_number_never_wins(tmp_path: Path) -> None:
    for bad in (float("nan"), float("-inf"), float("inf"), None):
        with Checkpoints(tmp_path / str(bad), keep=2, about=ABOUT) as checkpoints:
            for step, score in enumerate([3.0, bad, 4.0, 5.0, 6.0]):
                checkpoints.save(step, a_state(step), metrics={"validation_loss": score or 0}, score=score)
            assert (tmp_path / str(bad) / "0").exists()


def test_a_second_writer_is_refused_and_told_who_writes(saved: Path) -> None:
    with (
        Checkpoints(saved, keep=2, about=ABOUT),
        pytest.raises(UserError, match=f"process {os.getpid()}"),
    ):
        Checkpoints(saved, keep=2, about=ABOUT)
    assert restored_step(saved) == 3


def test_readers_need_no_lock_and_change_nothing(saved: Path) -> None:
    before = sorted(path for path in saved.rglob("*"))
    with Checkpoints(saved, keep=2, about=ABOUT):
        assert read_about(saved)["step"] == 3
        assert read_about(saved, 1)["score"] == 0.5
    assert sorted(path for path in saved.rglob("*")) == before


def cut_a_file(step: Path) -> None:
    target = max((path for path in step.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)
    target.write_bytes(target.read_bytes()[: target.stat().st_size // 2])


def garble_the_manifest(step: Path) -> None:
    target = step / "manifest" / "_strings.json"
    target.write_text(target.read_text().replace("bytes", "bytez"))


DAMAGES: dict[str, Callable[[Path], Any]] = {
    "flipped bit": flip_a_bit,
    "truncated file": cut_a_file,
    "empty folder": lambda step: (shutil.rmtree(step), step.mkdir()),
    "no manifest": lambda step: shutil.rmtree(step / "manifest"),
    "no parameters": lambda step: shutil.rmtree(step / "params"),
    "garbled manifest": garble_the_manifest,
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_step_is_set_aside_and_the_one_before_it_loads(saved: Path, name: str) -> None:
    DAMAGES[name](saved / "3")
    assert read_about(saved, 1)["step"] == 1
    remarks: list[str] = []
    assert restored_step(saved, remarks) == 2
    assert "checkpoint 3 is damaged" in remarks[0]
    assert (saved / "rejected-3-0").is_dir()
    with Checkpoints(saved, keep=2, about=ABOUT) as checkpoints:  # and the step can be saved anew
        checkpoints.save(3, a_state(3), metrics={}, score=None)
    assert restored_step(saved) == 3


@pytest.mark.parametrize("name", DAMAGES)
def test_reading_every_step_back_names_the_damaged_ones_and_moves_nothing(saved: Path, name: str) -> None:
    assert [(found.step, found.fault) for found in verify_steps(saved)] == [(1, ""), (2, ""), (3, "")]
    assert verify_steps(saved)[0].score == 0.5
    DAMAGES[name](saved / "2")
    before = sorted(saved.rglob("*"))
    assert [bool(found.fault) for found in verify_steps(saved)] == [False, True, False]
    assert sorted(saved.rglob("*")) == before


def test_a_folder_that_only_looks_like_a_step_does_not_win(saved: Path) -> None:
    (saved / "99").mkdir()
    assert read_params(saved, abstract(a_state()["params"]))[1]["step"] == 3
    assert restored_step(saved) == 3


def test_when_nothing_verifies_the_error_says_so(saved: Path) -> None:
    for step in saved.glob("[0-9]*"):
        shutil.rmtree(step / "params")
    with pytest.raises(CheckpointError, match="no undamaged checkpoint"):
        read_params(saved, abstract(a_state()["params"]))
    with (
        Checkpoints(saved, keep=2, about=ABOUT, report=lambda _: None) as checkpoints,
        pytest.raises(CheckpointError, match="none is undamaged"),
    ):
        checkpoints.restore(abstract(a_state()))


def test_an_empty_directory_restores_nothing(tmp_path: Path) -> None:
    with Checkpoints(tmp_path / "new", keep=2, about=ABOUT) as checkpoints:
        assert checkpoints.restore(abstract(a_state())) is None
    with pytest.raises(CheckpointError, match="has no checkpoint in"):
        read_about(tmp_path / "absent")


def test_another_model_or_optimizer_is_refused_by_leaf(saved: Path) -> None:
    others = {
        "params/a/kernel is float32 \\[16, 8\\], must be float32 \\[4, 8\\]": {
            "params": a_state(rows=4)["params"]
        },
        "must be bfloat16": a_state()
        | {"params": jax.tree.map(lambda x: x.astype(jnp.bfloat16), a_state()["params"])},
        "opt_state/0/trace/b is missing": a_state()
        | {"opt_state": optax.sgd(1, 0.9).init(a_state()["params"])},
        "counters/step is not asked for": a_state() | {"counters": {}},
    }
    with Checkpoints(saved, keep=2, about=ABOUT) as checkpoints:
        for message, state in others.items():
            with pytest.raises(CheckpointError, match=message):
                checkpoints.restore(abstract(state))
    assert restored_step(saved) == 3  # a mismatch is no damage: nothing was set aside


def test_a_failed_save_is_reported_and_the_next_one_succeeds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    remarks: list[str] = []
    checkpoints = Checkpoints(tmp_path, keep=2, about=ABOUT, report=remarks.append)
    checkpoints.save(1, a_state(1), metrics={}, score=None)
    with monkeypatch.context() as patch:
        patch.setattr(step_folder.ocp, "save_checkpointables", _no_space)
        checkpoints.save(2, a_state(2), metrics={}, score=None)
    assert "No space left on device" in remarks[0]
    with pytest.raises(CheckpointError, match="No space left"):
        checkpoints.require_saved()
    checkpoints.save(3, a_state(3), metrics={}, score=None)
    checkpoints.close()
    assert restored_step(tmp_path) == 3


def test_when_the_last_save_failed_closing_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(step_folder.ocp, "save_checkpointables", _no_space)
    checkpoints = Checkpoints(tmp_path, keep=2, about=ABOUT, report=lambda _: None)
    checkpoints.save(1, a_state(1), metrics={}, score=None)
    with pytest.raises(CheckpointError, match="could not be saved"):
        checkpoints.close()


def test_a_state_larger_than_the_free_space_is_not_begun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=10)
    monkeypatch.setattr(step_folder.shutil, "disk_usage", lambda _: usage)
    checkpoints = Checkpoints(tmp_path, keep=2, about=ABOUT, report=lambda _: None)
    checkpoints.save(1, a_state(1), metrics={}, score=None)
    with pytest.raises(CheckpointError, match="10 are free"):
        checkpoints.close()


def _no_space(*_: Any) -> None:
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize("devices", [1, 2, 4, 8])
def test_checksums_and_restored_bits_do_not_depend_on_the_mesh(saved: Path, devices: int) -> None:
    sharding = NamedSharding(Mesh(np.array(jax.devices()[:devices]), ("x",)), PartitionSpec("x"))
    kernel = a_state(3)["params"]["a"]["kernel"]
    spread = jax.device_put(kernel, sharding)
    assert checksums({"k": spread}) == checksums({"k": kernel})
    wanted: dict[str, Any] = {
        "a": {"kernel": jax.ShapeDtypeStruct(kernel.shape, kernel.dtype, sharding=sharding)}
    }
    wanted["b"] = jax.ShapeDtypeStruct((8,), jnp.float32, sharding=sharding)
    params, _ = read_params(saved, wanted)
    assert params["a"]["kernel"].sharding == sharding
    assert same_bits(params, a_state(3)["params"])


KILLED = """
import sys, jax.numpy as jnp
from pathlib import Path
from llm_jax.checkpoints.writer import Checkpoints
with Checkpoints(Path(sys.argv[1]), keep=2, about={}) as checkpoints:
    for step in range(1000):
        checkpoints.save(step, {"params": {"x": jnp.full((300, 300), float(step))}}, metrics={}, score=None)
        print(step, flush=True)
"""


def test_a_kill_in_the_middle_of_a_save_leaves_the_last_reported_step(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    for line in process.stdout:
        if int(line) == 4:
            break
    process.send_signal(signal.SIGKILL)
    rest = process.stdout.read().split()
    process.wait()
    process.stdout.close()
    reported = int(rest[-1]) if rest else 4
    params, about = read_params(tmp_path, {"x": jax.ShapeDtypeStruct((300, 300), jnp.float32)})
    assert about["step"] in (reported, reported + 1)
    assert np.unique(params["x"]).tolist() == [about["step"]]
    with Checkpoints(tmp_path, keep=2, about={}) as checkpoints:  # opening clears what the kill left behind
        assert checkpoints.latest_step() == about["step"]
    assert not [path for path in tmp_path.iterdir() if "tmp" in path.name]


def test_the_manifest_is_plain_json(saved: Path) -> None:
    sealed = json.loads((saved / "3" / "manifest" / "_strings.json").read_text())
    assert json.loads(sealed["text"])["leaves"]["counters"]["step"][:2] == ["int32", []]
