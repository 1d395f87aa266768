"""The notebooks in examples/ run, cell by cell, with few steps; no outputs are stored in them."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.cli.test_chat import import_talking_model
from tests.support.shared_data import ROOT

pytestmark = pytest.mark.compiles

NOTEBOOKS = sorted((ROOT / "examples").glob("*.ipynb"))


def cells(path: Path) -> list[dict[str, Any]]:
    return [cell for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == "code"]


def run_cells(path: Path) -> dict[str, Any]:
    """The names that a notebook's cells leave behind."""
    names: dict[str, Any] = {}
    for number, cell in enumerate(cells(path), 1):
        source = re.sub(r"^STEPS = \d+", "STEPS = 4", "".join(cell["source"]), flags=re.MULTILINE)
        exec(compile(source, f"{path.name}, cell {number}", "exec"), names)  # noqa: S102 - our own notebook
    return names


def test_there_are_three_and_no_outputs_are_stored() -> None:
    assert [path.stem for path in NOTEBOOKS] == ["first_model", "open_model", "own_loop"]
    for path in NOTEBOOKS:
        assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in cells(path))


def test_the_first_model(place: Path) -> None:
    names = run_cells(ROOT / "examples" / "first_model.ipynb")
    assert names["run"].metrics[-1]["step"] == 4
    assert (place / "runs" / "first_model" / "report.html").exists()


def test_an_own_loop(place: Path) -> None:
    names = run_cells(ROOT / "examples" / "own_loop.ipynb")
    assert names["nats"] < 6
    assert len(names["ids"]) == 50
    assert names["seen"][-1] == 4


def test_an_open_model_looked_into(place: Path, tmp_path: Path) -> None:
    shutil.move(import_talking_model(tmp_path), place / "smollm2")
    names = run_cells(ROOT / "examples" / "open_model.ipynb")
    assert len(names["names"]) == len(names["ids"]) > 4
    assert len(names["score"].log_probs) > 4
