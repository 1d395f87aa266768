"""A real browser, and the pages of two small runs in it.

Needs Chromium on the PATH (Debian: `apt-get install chromium`); without it the tests fail and say so.
"""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, sync_playwright

from llm_jax.cli import command
from llm_jax.display.words import LANGUAGES
from llm_jax.explain import explain
from llm_jax.report import report
from llm_jax.train import train

NAMES = ("explain", "report", "comparison")


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if found is None:
        pytest.fail("Chromium must be on the PATH; on Debian: apt-get install chromium")
    with sync_playwright() as playwright:
        # The pages are our own files, so the sandbox, which some containers lack, protects from nothing here.
        chromium = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield chromium
        chromium.close()


def run_command(function: Any, *words: str, **options: bool) -> None:
    with pytest.raises(SystemExit) as stop:
        command.run(function, list(words), **options)
    assert stop.value.code == 0


@pytest.fixture(scope="session")
def pages(tmp_path_factory: pytest.TempPathFactory, prose: Path) -> dict[str, Path]:
    """The walkthrough and the report of a small run, a comparison of two, and all of it in Chinese."""
    folder = tmp_path_factory.mktemp("pages")
    runs = [folder / "one", folder / "two"]
    for seed, run in enumerate(runs):
        run_command(
            train,
            *(f"--data.corpus={prose}", f"--data.prepared={folder / 'prepared'}", f"--train.run={run}"),
            *("--model.num_layers=2", "--train.steps=40", "--train.eval_interval=20", f"--train.seed={seed}"),
            takes_files=True,
        )
    found = {}
    for language in LANGUAGES:
        found |= {f"{name} {language}": folder / f"{name}.{language}.html" for name in NAMES}
        for name, function, given in (
            ("explain", explain, runs[:1]),
            ("report", report, runs[:1]),
            ("comparison", report, runs),
        ):
            page = found[f"{name} {language}"]
            run_command(function, *map(str, given), "--language", language, "--out", str(page))
    return found
