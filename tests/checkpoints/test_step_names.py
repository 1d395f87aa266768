"""A step is known by its manifest, and not by the name of its folder alone."""

import io
import shutil
from pathlib import Path

import pytest

from llm_jax.base.errors import CheckpointError
from llm_jax.checkpoints import step_files
from llm_jax.checkpoints.reader import read_about, read_before, read_restored, verify_steps
from llm_jax.checkpoints.step_files import saved_steps
from llm_jax.checkpoints.writer import Checkpoints
from tests.checkpoints.test_checkpoint import saved
from tests.support.checkpoints import ABOUT, a_state, abstract, restored_step, same_bits

__all__ = ["saved"]


@pytest.mark.parametrize("newest", ["99", "3"])
@pytest.mark.parametrize("kind", ["copy", "link"])
def test_an_older_step_under_another_name_is_refused(saved: Path, newest: str, kind: str) -> None:
    target = saved / newest
    if target.exists():
        shutil.rmtree(target)
    if kind == "copy":
        shutil.copytree(saved / "1", target)
    else:
        target.symlink_to(saved / "1")
    sound = 2 if newest == "3" else 3
    assert read_restored(saved, abstract(a_state())).step == sound
    assert read_about(saved)["step"] == sound
    assert "step 1 under another name" in verify_steps(saved)[-1].fault
    remarks: list[str] = []
    assert restored_step(saved, remarks) == sound
    assert f"checkpoint {newest} is damaged (it is step 1" in remarks[0]
    assert (saved / "1").is_dir()
    assert read_about(saved, 1)["step"] == 1  # what the link led to is untouched


def test_a_part_of_an_older_step_is_refused(saved: Path) -> None:
    shutil.rmtree(saved / "3" / "params")
    shutil.copytree(saved / "1" / "params", saved / "3" / "params")
    assert "params" in verify_steps(saved)[-1].fault
    assert restored_step(saved) == 2


def test_a_link_to_a_step_under_its_own_name_is_that_step(saved: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    shutil.move(saved / "3", elsewhere / "3")
    (saved / "3").symlink_to(elsewhere / "3")
    assert restored_step(saved) == 3
    with Checkpoints(saved, keep=1, about=ABOUT) as checkpoints:
        for step in (4, 5):
            checkpoints.save(step, a_state(step), metrics={}, score=None)
    assert sorted(path.name for path in saved.iterdir() if path != elsewhere) == [".lock", "1", "5"]
    assert (elsewhere / "3").is_dir()  # of a link the link alone is removed


@pytest.mark.parametrize("name", ["٦٠", "007", "६", "³", "0x10", "1_0", "-4", "+4", "4.0", " 4", ""])
def test_a_name_that_is_not_how_a_step_is_written_is_no_step(saved: Path, name: str) -> None:
    if name:
        shutil.copytree(saved / "3", saved / name)
    (saved / "77").write_text("a file is no step")
    assert sorted(saved_steps(saved)) == [1, 2, 3]
    assert restored_step(saved) == 3
    assert not name or (saved / name).is_dir()


@pytest.mark.parametrize("target", ["nowhere", "79"])
def test_a_link_that_leads_nowhere_now_is_no_reason_to_go_on_from_an_older_step(
    saved: Path, target: str
) -> None:
    (saved / "79").symlink_to(target)
    for read in (read_about, restored_step):
        with pytest.raises(CheckpointError, match="79 could not be read"):
            read(saved)
    assert "could not be read" in verify_steps(saved)[-1].fault
    assert (saved / "79").is_symlink()


def test_an_empty_folder_of_checkpoints_holds_none(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="has no checkpoint in"):
        read_about(tmp_path)
    assert verify_steps(tmp_path) == []
    with Checkpoints(tmp_path, keep=2, about=ABOUT) as checkpoints:
        assert checkpoints.latest_step() is None
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="must be a folder that can be read"):
        read_about(tmp_path / "file")


def test_a_damaged_step_is_never_deleted(saved: Path) -> None:
    (saved / "1" / step_files.MANIFEST).write_text("{}")
    with Checkpoints(saved, keep=1, about=ABOUT) as checkpoints:
        checkpoints.save(4, a_state(4), metrics={}, score=None)
    assert sorted(saved_steps(saved)) == [1, 3, 4]  # 3 has the best score of those that are sound


def test_verifying_reads_a_block_at_a_time(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside the state of a run that has just ended there may be no room for another."""
    asked: list[int] = []

    def opened(path: Path, mode: str) -> io.BytesIO:
        file = io.BytesIO(path.read_bytes())
        monkeypatch.setattr(file, "read", lambda size: asked.append(size) or io.BytesIO.read(file, size))
        return file

    monkeypatch.setattr(step_files, "open", opened, raising=False)
    monkeypatch.setattr(step_files, "_BLOCK", 100)
    assert [found.fault for found in verify_steps(saved)] == ["", "", ""]
    assert set(asked) == {100}
    assert len(asked) > 3 * 16 * 8 * 4 / 100  # every byte of the largest leaf of each step, and more


def test_the_newest_sound_step_up_to_a_limit_is_read_and_nothing_changes(saved: Path) -> None:
    remarks: list[str] = []
    read = [read_before(saved, abstract(a_state()), last, remarks.append) for last in (0, 1, 2, 9)]
    assert [restored and restored.step for restored in read] == [None, 1, 2, 3]
    assert same_bits(read[2].state, a_state(2))  # type: ignore[union-attr]
    assert not remarks
    shutil.rmtree(saved / "2" / "params")
    before = sorted(saved.rglob("*"))
    restored = read_before(saved, abstract(a_state()), 2, remarks.append)
    assert restored is not None
    assert restored.step == 1
    assert "checkpoint 2 is damaged" in remarks[0]
    assert sorted(saved.rglob("*")) == before


def test_a_run_that_is_not_there_is_refused_with_those_that_are(tmp_path: Path) -> None:
    for name in ("first", "tutorial"):
        (tmp_path / name / "checkpoints").mkdir(parents=True)
    with pytest.raises(CheckpointError) as caught:
        read_about(tmp_path / "mine" / "checkpoints")
    assert str(caught.value) == f"no such run: {tmp_path / 'mine'} (runs here: first, tutorial)"
