"""Trackers behind one switch: none by itself, offline, one run however often it goes on, never in the way."""

import sys
from pathlib import Path
from typing import Any

import pytest

from llm_jax.base.errors import UserError
from llm_jax.config.run import TrainConfig
from llm_jax.runs.record import RunRecord
from llm_jax.runs.trackers import PACKAGES, require_tracker

# A stand-in for each package: it writes down what it is asked for.
STAND_IN = """
asked = []

class Settings(dict):
    pass

class Run:
    def log(self, numbers, step):
        asked.append(("log", step, numbers))

    def finish(self):
        asked.append(("finish",))

def init(**options):
    asked.append(("init", options))
    return Run()
"""
LOGGED = ["wandb", "trackio"]


def stand_in(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch, source: str = STAND_IN) -> None:
    (folder / "packages").mkdir()
    (folder / "packages" / f"{name}.py").write_text(source)
    monkeypatch.syspath_prepend(folder / "packages")
    monkeypatch.delitem(sys.modules, name, raising=False)


def record_steps(run: Path, start: int, tracker: str, *steps: int, warn: Any = pytest.fail) -> None:
    record = RunRecord(run, {"train": {"seed": 1}}, start, warn, tracker)
    for step in steps:
        record.write(step, loss=step / 2, speed=float("nan"), grad_norms={"blocks": [1.0, None]})
    record.close()


@pytest.mark.parametrize("name", LOGGED)
def test_a_tracker_gets_every_number_and_the_same_run_when_it_goes_on(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in(name, tmp_path, monkeypatch)
    require_tracker(name)
    record_steps(tmp_path, 0, name, 1, 2)
    asked = sys.modules[name].asked
    (_, options), *rest = asked
    assert rest == [
        *(("log", step, {"loss": step / 2, "grad_norms/blocks/0": 1.0}) for step in (1, 2)),
        ("finish",),
    ]
    assert options["config"] == {"train": {"seed": 1}}
    assert options["resume"] == "allow"
    identity = options["id" if name == "wandb" else "name"]
    asked.clear()
    record_steps(tmp_path, 2, name, 3)
    assert asked[0][1]["id" if name == "wandb" else "name"] == identity
    asked.clear()
    record_steps(tmp_path, 0, name)  # begun anew
    assert asked[0][1]["id" if name == "wandb" else "name"] != identity


def test_weights_and_biases_writes_offline_into_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in("wandb", tmp_path, monkeypatch)
    record_steps(tmp_path, 0, "wandb", 1)
    options = sys.modules["wandb"].asked[0][1]
    assert (options["mode"], options["dir"]) == ("offline", tmp_path)


@pytest.mark.parametrize("name", LOGGED)
def test_a_tracker_that_fails_is_one_warning(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in(
        name, tmp_path, monkeypatch, "def init(**_):\n    raise SystemExit('no account')\n\nSettings = dict\n"
    )
    warnings: list[str] = []
    record_steps(tmp_path, 0, name, 1, 2, warn=warnings.append)
    assert warnings == [f"{name} failed: SystemExit; the run goes on"]
    assert (tmp_path / "metrics.jsonl").read_text().count("\n") == 2


@pytest.mark.parametrize("name", PACKAGES)
def test_a_tracker_that_is_not_installed_is_refused_with_its_extra(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, PACKAGES[name], None)
    command = rf'pip install "llm-jax\[{name}\]"'
    with pytest.raises(UserError, match=f"needs the package {PACKAGES[name]}: {command}"):
        require_tracker(name)


def test_none_is_on_by_itself(tmp_path: Path) -> None:
    assert TrainConfig().tracker == "none"
    require_tracker("none")
    record_steps(tmp_path, 0, "none", 1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "metrics.jsonl"]
