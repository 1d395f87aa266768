"""TensorBoard's files of a run: every step once, nothing where nothing was measured, and no waiting."""

from pathlib import Path
from typing import Any

import pytest

from llm_jax.runs.record import RunRecord
from llm_jax.runs.tensorboard import _Format, records_of

pytest.importorskip("tensorboardX", reason="tensorboardX is optional")


def written(run: Path) -> list[tuple[int, str, float]]:
    """(step, tag, number) of all that is there, file by file."""
    format, found = _Format(), []
    for path in sorted((run / "tensorboard").iterdir()):
        first, *events = map(format.event.FromString, records_of(path.read_bytes(), format.checksum))
        assert first.file_version == "brain.Event:2"
        found += [
            (event.step, value.tag, value.simple_value) for event in events for value in event.summary.value
        ]
    return found


def record_steps(run: Path, start: int, *steps: int) -> None:
    record = RunRecord(run, {}, start, pytest.fail, "tensorboard")
    for step in steps:
        record.write(step, loss=step / 2, speed=float("nan"), grad_norms={"blocks": [1.0, None]})


def test_a_resumed_run_has_every_step_once(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    record_steps(tmp_path, 0, 1, 2, 3)
    record_steps(tmp_path, 2, 3, 4)
    wanted: list[Any] = [
        line
        for step in (1, 2, 3, 4)
        for line in ((step, "loss", step / 2), (step, "grad_norms/blocks/0", 1.0))
    ]
    assert written(tmp_path) == wanted
    assert not recwarn.list
    record_steps(tmp_path, 0, 1)  # begun anew
    assert written(tmp_path) == wanted[:2]


def test_what_a_kill_or_a_damage_left_is_cut_off(tmp_path: Path) -> None:
    record_steps(tmp_path, 0, 1, 2, 3)
    (path,) = (tmp_path / "tensorboard").iterdir()
    whole = path.read_bytes()
    path.write_bytes(whole[:-3])
    record_steps(tmp_path, 3, 4)
    assert {step for step, *_ in written(tmp_path)} == {1, 2, 4}
    path.write_bytes(whole[:20] + b"\xff" + whole[21:])  # in the first record
    record_steps(tmp_path, 3, 4)
    assert {step for step, *_ in written(tmp_path)} == {4}


def test_a_full_disk_is_a_warning_and_leaves_no_half_of_a_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    warnings: list[str] = []
    record = RunRecord(tmp_path, {}, 0, warnings.append, "tensorboard")
    record.write(1, loss=1.0)
    (path,) = (tmp_path / "tensorboard").iterdir()
    before = path.read_bytes()
    path.unlink()
    path.symlink_to("/dev/full")
    for step in range(2, 30):
        record.write(step, loss=1.0)
    path.unlink()
    path.write_bytes(before)
    record.write(30, loss=1.0)
    assert {step for step, *_ in written(tmp_path)} == {1, 30}
    assert len(warnings) == 1
    assert "tensorboard failed" in warnings[0]
