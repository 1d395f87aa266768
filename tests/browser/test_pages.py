"""The pages in a real browser: nothing fails, nothing is fetched, everything fits and can be read and folded.

Needs Chromium on the PATH (Debian: `apt-get install chromium`); without it the tests fail and say so.
"""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, sync_playwright

from llm_jax.cli import command
from llm_jax.explain import explain
from llm_jax.report import report
from llm_jax.train import train

LAPTOP, PHONE = 1280, 390


@pytest.fixture(scope="module")
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


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory, prose: Path) -> dict[str, Path]:
    """The walkthrough and the report of a small run, and a comparison of two."""
    folder = tmp_path_factory.mktemp("pages")
    runs = [folder / "one", folder / "two"]
    for seed, run in enumerate(runs):
        run_command(
            train,
            *(f"--data.corpus={prose}", f"--data.prepared={folder / 'prepared'}", f"--train.run={run}"),
            *("--model.num_layers=2", "--train.steps=40", "--train.eval_interval=20", f"--train.seed={seed}"),
            takes_files=True,
        )
    run_command(explain, str(runs[0]))
    run_command(report, *map(str, runs), "--out", str(folder / "both.html"))
    return {
        "explain": runs[0] / "explain.html",
        "report": runs[0] / "report.html",
        "comparison": folder / "both.html",
    }


class Opened:
    """A page with what it did while it was open."""

    def __init__(self, browser: Browser, file: Path, width: int, scheme: str):
        self.page: Page = browser.new_page(viewport={"width": width, "height": 900})
        self.page.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
        self.complaints: list[str] = []
        self.fetched: list[str] = []
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", lambda request: self.fetched.append(request.url))
        self.page.goto(file.as_uri())


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [LAPTOP, PHONE])
@pytest.mark.parametrize("name", ["explain", "report", "comparison"])
def test_a_page_loads_alone_fits_and_is_readable(
    browser: Browser, pages: dict[str, Path], name: str, width: int, scheme: str
) -> None:
    opened = Opened(browser, pages[name], width, scheme)
    assert opened.complaints == []
    assert [url for url in opened.fetched if not url.startswith("data:")] == [pages[name].as_uri()]
    assert opened.page.evaluate("document.documentElement.scrollWidth") <= width
    found = Axe().run(opened.page, options={"runOnly": ["color-contrast", "scrollable-region-focusable"]})
    assert found.response["violations"] == []
    assert found.response["passes"]  # the rules had something to look at
    opened.page.close()


def test_faint_text_would_be_noticed(browser: Browser, pages: dict[str, Path], tmp_path: Path) -> None:
    faint = tmp_path / "faint.html"
    faint.write_text(pages["report"].read_text().replace("--soft: #4c5a6b", "--soft: #c9c9c9"))
    opened = Opened(browser, faint, LAPTOP, "light")
    found = Axe().run(opened.page, options={"runOnly": ["color-contrast"]})
    assert found.response["violations"]
    opened.page.close()


def test_pointing_at_a_token_shows_where_a_head_looks(browser: Browser, pages: dict[str, Path]) -> None:
    page = Opened(browser, pages["explain"], LAPTOP, "light").page
    readout, tokens = page.locator(".attention .readout"), page.locator(".looks .token")
    seen = set()
    for place in (3, 7):
        tokens.nth(place).hover()
        seen.add(readout.inner_text())
    page.locator(".grid button").nth(5).click()
    seen.add(readout.inner_text())
    assert len(seen) == 3
    assert all("%" in text for text in seen)
    page.close()


def test_tables_fold(browser: Browser, pages: dict[str, Path]) -> None:
    page = Opened(browser, pages["explain"], LAPTOP, "light").page
    section = page.locator("#projections details")
    assert section.count() == 3
    assert section.nth(0).locator("table").is_visible()
    assert not section.nth(1).locator("table").is_visible()
    section.nth(1).locator("summary").click()
    assert section.nth(1).locator("table").is_visible()
    page.close()
