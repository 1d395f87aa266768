"""Runs in folders with awkward names: saved, read back, moved, linked; and a save that comes back wrong."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from llm_jax.base.errors import CheckpointError
from llm_jax.checkpoints import step_folder
from llm_jax.checkpoints.reader import read_about, read_params, verify_steps
from llm_jax.checkpoints.writer import Checkpoints
from tests.support.awkward_paths import AWKWARD_NAMES
from tests.support.checkpoints import ABOUT, a_state, abstract, restored_step, same_bits

PARAMS = {"params": a_state(1)["params"]}


@pytest.mark.parametrize("name", AWKWARD_NAMES)
def test_a_run_is_read_again_whatever_its_folder_is_called(tmp_path: Path, name: str) -> None:
    (tmp_path / "aXb" / "checkpoints" / "1").mkdir(parents=True)  # what patterns would match
    folder = tmp_path / AWKWARD_NAMES[name] / "checkpoints"
    remarks: list[str] = []
    with Checkpoints(folder, keep=2, about=ABOUT, report=remarks.append) as checkpoints:
        checkpoints.save(1, PARAMS, metrics={}, score=None)
        restored = checkpoints.restore(abstract(PARAMS))
    assert not remarks
    assert restored is not None
    assert same_bits(restored.state, PARAMS)
    assert sorted(path.name for path in folder.iterdir()) == [".lock", "1"]
    assert verify_steps(folder) == [(1, None, "")]
    moved = tmp_path / "moved"
    folder.rename(moved)
    assert same_bits(read_params(moved, abstract(PARAMS["params"]))[0], PARAMS["params"])


def test_a_run_is_read_through_links(tmp_path: Path) -> None:
    (tmp_path / "real[1]").mkdir()
    (tmp_path / "link").symlink_to("real[1]")
    for folder in (tmp_path / "link" / "checkpoints", tmp_path / "real[1]" / "checkpoints"):
        with Checkpoints(folder, keep=2, about=ABOUT) as checkpoints:
            checkpoints.save(1, PARAMS, metrics={}, score=None)
        assert read_about(folder)["step"] == 1


def test_a_run_below_the_working_folder_is_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("-rf", "~", "x[1]", "."):
        with Checkpoints(Path(name), keep=2, about=ABOUT) as checkpoints:
            checkpoints.save(1, PARAMS, metrics={}, score=None)
        assert same_bits(read_params(Path(name), abstract(PARAMS["params"]))[0], PARAMS["params"])


def test_a_save_of_which_a_leaf_cannot_be_read_back_is_no_save(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save = step_folder.ocp.save_checkpointables

    def forgetful(path: str, *words: Any) -> None:
        save(path, *words)
        shutil.rmtree(Path(path, "params", "d"))

    remarks: list[str] = []
    with (
        monkeypatch.context() as patch,
        Checkpoints(tmp_path, keep=2, about=ABOUT, report=remarks.append) as checkpoints,
    ):
        checkpoints.save(1, a_state(1), metrics={}, score=None)
        patch.setattr(step_folder.ocp, "save_checkpointables", forgetful)
        checkpoints.save(2, a_state(2), metrics={}, score=None)
        assert "checkpoint 2 could not be saved" in remarks[0]
        with pytest.raises(CheckpointError, match="params/a/kernel cannot be read back"):
            checkpoints.require_saved()
        patch.undo()
        checkpoints.save(3, a_state(3), metrics={}, score=None)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".lock", "1", "3"]
    assert restored_step(tmp_path) == 3
