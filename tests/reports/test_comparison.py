"""Comparisons of runs: which is better, and whether that is an accident."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from llm_jax.display.words import read_words
from llm_jax.evaluate import evaluate
from llm_jax.report import report
from llm_jax.reports.comparison_page import Pair, verdict
from llm_jax.runs import data
from tests.reports.test_report import last_json, sections, text_of
from tests.support.commands import metrics_of, run_command

pytestmark = pytest.mark.compiles


def test_two_runs_of_two_tokenizers_say_which_is_better_and_that_it_is_no_accident(
    trained: Path, idle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_command(report, [str(trained), str(idle), "--out", str(tmp_path / "page.html")])
    (pair,) = last_json(capsys)["pairs"]
    assert pair["better"] == "run"
    assert pair["exceeds_noise"]
    assert pair["difference"] == pytest.approx(pair["second"] - pair["first"])
    assert pair["difference"] > 2 * pair["standard_error"] > 0
    run_command(evaluate, [str(trained)])
    # All that the first run held out, the second did too.
    score = last_json(capsys)
    assert pair["first"] == pytest.approx(score["bits_per_byte"], rel=1e-9)
    assert pair["bytes"] == score["bytes"]
    page = (tmp_path / "page.html").read_text()
    assert "run is better than idle by" in page
    assert "data.tokenizer cl100k_base bytes" in text_of(page)
    assert "The seed is not in this error." in page
    run_command(report, [str(idle), str(trained), "--out", str(tmp_path / "page.html")])
    (swapped,) = last_json(capsys)["pairs"]
    assert swapped["difference"] == -pair["difference"]
    assert swapped["better"] == "run"


def test_a_run_beside_itself_has_no_winner(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_command(report, [str(trained), str(trained), "--out", str(tmp_path / "page.html")])
    printed = capsys.readouterr().out.splitlines()
    (pair,) = json.loads(printed[-1])["pairs"]
    assert (pair["difference"], pair["better"], pair["exceeds_noise"]) == (0, None, False)
    assert "have the same loss" in printed[2]


def test_runs_on_different_texts_are_not_paired_and_the_page_says_why(
    trained: Path,
    idle: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    scored = data.Materials.scored

    def elsewhere(self: data.Materials, params: Any) -> Any:
        name = self.config.data.tokenizer
        return scored(self, params)._replace(source=f"digest of {name}", corpus=f"the book in {name}")

    monkeypatch.setattr(data.Materials, "scored", elsewhere)
    out = tmp_path / "page.html"
    run_command(report, [str(trained), str(idle), "--out", str(out), "--png", str(tmp_path / "png")])
    (pair,) = last_json(capsys)["pairs"]
    assert "on the book in cl100k_base and on the book in bytes cannot be compared" in pair["reason"]
    assert pair["reason"] in text_of(out.read_text())
    assert "difference" not in sections(out.read_text())
    assert (tmp_path / "png" / "validation_bits_per_byte.png").exists()


def test_all_runs_of_a_folder_are_compared_and_what_is_none_is_left_out(
    trained: Path, idle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = tmp_path / "runs"
    runs.mkdir()
    (runs / "a").symlink_to(trained)
    (runs / "b").symlink_to(idle)
    (runs / "comparison.html").write_text("an earlier page")
    (runs / "empty").mkdir()
    out = tmp_path / "page.html"
    run_command(report, [*map(str, sorted(runs.iterdir())), "--out", str(out)])
    printed = capsys.readouterr().out
    assert json.loads(printed.splitlines()[-1])["first"] == trained.name
    for name in ("comparison.html", "empty"):
        assert f"left out: {runs / name} is no run directory" in printed
        assert f"{runs / name} is no run directory" in text_of(out.read_text())
    (table,) = re.findall(r'<table class="sortable">.*?</table>', out.read_text(), re.DOTALL)
    heads = [text_of(head) for head in re.findall(r"<th.*?</th>", table)]
    assert heads[:4] == ["run", "steps", "best loss, nats per token", "at step"]
    assert "data.tokenizer" in heads
    rows = [
        re.findall(r'data-value="([^"]*)"', row) for row in re.findall(r"<tr><td.*?</tr>", table, re.DOTALL)
    ]
    for run, row in zip((trained, idle), rows, strict=True):
        scores = [entry for entry in metrics_of(run) if "validation_loss" in entry]
        best = min(scores, key=lambda entry: entry["validation_loss"])
        assert [float(row[at]) for at in (1, 2, 3, 4)] == [
            *(12, best["validation_loss"], best["step"], best["validation_bits_per_byte"]),
        ]
        assert row[heads.index("data.tokenizer")] in ("cl100k_base", "bytes")
    run_command(report, [str(trained), str(runs / "empty")], status=4)
    assert "compares two runs or more" in capsys.readouterr().err


def test_a_difference_within_the_noise_has_no_winner() -> None:
    pair = Pair("b", 2.0, 1.99, -0.01, 0.02, 10_000, 39, "b", exceeds_noise=False)
    assert verdict(pair, "a", read_words("reports", "en")) == (
        "b is ahead of a by 0.0100 ± 0.0200 bits per byte, which is within the noise: no winner."
    )
