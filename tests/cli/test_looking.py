"""Commands that look around: doctor, runs, configs."""

import json
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from llm_jax.base.errors import UserError
from llm_jax.cli import health
from llm_jax.config.load import named_configs
from llm_jax.doctor import doctor
from llm_jax.list_configs import configs
from llm_jax.list_runs import runs
from llm_jax.tokenization import byte_pair
from tests.support.commands import run_command


def said(capsys: pytest.CaptureFixture[str]) -> tuple[str, Any]:
    """What a command showed, and its line of JSON."""
    *shown, last = capsys.readouterr().out.splitlines()
    return "\n".join(shown), json.loads(last)


def states(found: dict[str, Any]) -> dict[str, str]:
    return {one["what"]: one["state"] for one in found["found"]}


def test_doctor_finds_this_installation_healthy_and_names_every_extra(
    capsys: pytest.CaptureFixture[str],
) -> None:
    run_command(doctor, [])
    shown, found = said(capsys)
    assert "all that training needs works" in shown
    assert found["healthy"]
    assert states(found)["devices"] == states(found)["tokenizers"] == "ok"
    extras = set(metadata.metadata("llm-jax").get_all("Provides-Extra") or ())
    named = {what.removeprefix("extra ") for what in states(found) if what.startswith("extra ")}
    assert named == extras - health._FOR_DEVELOPERS


def broken_tokenizer(name: str) -> None:
    raise UserError("tokenizer cl100k_base needs its file unharmed")


def test_doctor_ends_with_1_where_something_is_broken_and_still_says_the_rest(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(byte_pair, "named_tokenizer", broken_tokenizer)
    monkeypatch.setattr(health, "_LEAST_ROOM", 10**18)
    run_command(doctor, [], 1)
    shown, found = said(capsys)
    assert "broken: room on disk, tokenizers" in shown
    assert states(found)["packages"] == "ok"
    assert any("needs its file unharmed" in one["told"] for one in found["found"])


def test_doctor_says_how_to_get_an_extra_that_is_not_there(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(health, "_version", lambda package: "")
    run_command(doctor, [])
    _, found = said(capsys)
    told = {one["what"]: one["told"] for one in found["found"]}
    assert told["extra gguf"] == 'to get it: pip install "llm-jax[gguf]"'
    assert found["healthy"]


def a_run(folder: Path, losses: dict[int, float | None], steps: int) -> None:
    (folder / "checkpoints" / str(max(losses))).mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"train": {"steps": steps}}))
    lines = [json.dumps({"step": step, "validation_loss": loss}) for step, loss in losses.items()]
    (folder / "metrics.jsonl").write_text("\n".join(lines) + '\n{"step": 9, "loss": 1.0}\n{"damag')


def test_runs_are_listed_with_step_losses_and_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    run_command(runs, [], 2)
    assert capsys.readouterr().err == (
        "error: runs must be a folder with runs: No such file or directory; llm-jax train makes runs\n"
    )
    a_run(Path("runs/one"), {0: 5.0, 500: 3.25, 1000: 3.5}, 2000)
    a_run(Path("runs/two"), {0: None}, 100)
    Path("runs/none").mkdir()
    run_command(runs, [])
    shown, found = said(capsys)
    one, two = found["runs"]
    assert one == one | {"run": "runs/one", "step": 1000, "loss": 3.5, "best": 3.25, "best_step": 500}
    assert one["bytes"] == sum(path.stat().st_size for path in Path("runs/one").rglob("*") if path.is_file())
    assert (two["loss"], two["best"]) == (None, None)
    assert "1,000 of 2,000" in shown
    run_command(runs, ["runs/one"])
    assert said(capsys)[1]["runs"] == [one]
    run_command(runs, ["runs/none"])
    assert "no runs in runs/none" in said(capsys)[0]


def test_configs_are_listed_with_what_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    run_command(configs, [])
    _, found = said(capsys)
    assert found.keys() == named_configs().keys()
    assert all(Path(one["path"]).is_file() and len(one["about"]) > 20 for one in found.values())
