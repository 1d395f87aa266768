"""The report of a run while it trains: written now and then, renewed by itself until the run ends."""

import dataclasses
import io
import json
import shutil
import time
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import llm_jax
from llm_jax.base.errors import InterruptedAndSaved, UserError
from llm_jax.reports import live_page
from llm_jax.reports.live_page import LivePage
from llm_jax.runs import data
from llm_jax.runs.data import Materials
from llm_jax.train import train
from llm_jax.training import loop
from tests.reports.test_report import SECTIONS, sections, text_of
from tests.support.commands import metrics_of, run_command, words_for

pytestmark = pytest.mark.compiles

RENEWS = '<noscript><meta http-equiv="refresh" content="5"></noscript>'


@pytest.fixture
def material(trained: Path, tmp_path: Path) -> Materials:
    """Those of a copy of a run, without its page."""
    copy = Path(shutil.copytree(trained, tmp_path / "copy"))
    (copy / "report.html").unlink()
    found = data.gather_again(llm_jax.load(trained).about, "it", print)
    train_config = dataclasses.replace(found.config.train, run=copy)
    return found._replace(config=dataclasses.replace(found.config, train=train_config))


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time that the page goes by, in seconds."""
    now = [100.0]
    steady = SimpleNamespace(monotonic=lambda: now[0], strftime=time.strftime)
    monkeypatch.setattr(live_page, "time", steady)
    return now


def test_it_is_written_when_due_and_ends_with_the_run(material: Materials, clock: list[float]) -> None:
    shown: list[Path] = []
    watch, run = LivePage(shown.append), material.config.train.run
    page = run / "report.html"
    watch(material, {"bigram": 2.0}, True)
    assert shown == [page]
    first = page.read_text()
    assert RENEWS in first
    assert sections(first) == {"loss", "optimisation", "speed", "samples", "again"}
    assert first.count('class="curve"') == 6
    page.unlink()
    watch(material, {}, True)
    assert not page.exists()
    with (run / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"step": 13, "validation_loss": 99.0}) + "\n")
    clock[0] += 1000
    watch(material, {}, True)
    assert "to 99.000: overfitting" in text_of(page.read_text())
    watch(material, {}, False)
    assert RENEWS not in page.read_text()
    assert 'id="live"' not in page.read_text()
    assert shown == [page]


def test_what_cannot_be_written_is_not_tried_at_every_step(material: Materials, clock: list[float]) -> None:
    watch = LivePage(lambda _: None)
    (material.config.train.run / "report.html").mkdir()
    with pytest.raises(UserError, match="cannot be written"):
        watch(material, {}, True)
    watch(material, {}, True)
    clock[0] += 1000
    with pytest.raises(UserError):
        watch(material, {}, True)


def trained_in_sight(folder: Path, prose: Path, status: int = 0) -> str:
    """What a run says of which somebody wants to see the page."""
    said = io.StringIO()
    words = words_for(folder, prose, "--optim.learning_rate=0.01", "--open")
    with redirect_stdout(said), redirect_stderr(said):
        run_command(train, words, takes_files=True, status=status)
    return said.getvalue()


def test_train_opens_the_page_while_it_trains_and_leaves_the_whole_report(
    tmp_path: Path, prose: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    browser, seen = tmp_path / "browser", tmp_path / "seen"
    browser.write_text(f'#!/bin/sh\necho "$1" > {seen}.part\nmv {seen}.part {seen}\n')
    browser.chmod(0o755)
    monkeypatch.setenv("BROWSER", f"{browser} %s")
    pages: list[str] = []
    write = live_page.write_page
    monkeypatch.setattr(live_page, "write_page", lambda path, html: (pages.append(html), write(path, html)))
    monkeypatch.setattr(live_page, "SECONDS", 0)
    monkeypatch.setattr(live_page, "_SHARE", 0)
    said = trained_in_sight(tmp_path, prose)
    page = tmp_path / "run" / "report.html"
    assert RENEWS.replace("5", "0") in pages[0]
    assert len(pages) > 3
    assert "warning" not in said
    # Time beside the steps is left out once: twice would make it less than none.
    assert max(line.get("tokens_per_second") or 0 for line in metrics_of(tmp_path / "run")) < 1e8
    assert sections(page.read_text()) == SECTIONS
    assert RENEWS not in page.read_text()
    for _ in range(300):
        if seen.exists():
            break
        time.sleep(0.1)
    assert seen.read_text().strip() == page.as_uri()


def test_the_page_of_a_run_that_was_stopped_renews_itself_no_more(
    tmp_path: Path, prose: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    monkeypatch.delenv("BROWSER", raising=False)
    page = tmp_path / "run" / "report.html"

    def stopped(*_: Any) -> Any:
        assert RENEWS in page.read_text()
        raise InterruptedAndSaved("stopped by SIGTERM: step 3 is saved")

    monkeypatch.setattr(loop, "train", stopped)
    said = trained_in_sight(tmp_path, prose, status=75)
    assert f"no browser here: open {page} in one" in said.replace("\n", "")
    assert RENEWS not in page.read_text()
    assert sections(page.read_text()) == {"again"}
