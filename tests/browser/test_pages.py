"""The pages in a real browser: nothing fails, nothing is fetched, everything fits and can be read and folded.

Needs Chromium on the PATH (Debian: `apt-get install chromium`); without it the tests fail and say so.
"""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, sync_playwright

from llm_jax import command
from llm_jax.explain import explain

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


@pytest.fixture(scope="module")
def explained(tmp_path_factory: pytest.TempPathFactory, prose: Path) -> Path:
    """The walkthrough of a small untrained model."""
    folder = tmp_path_factory.mktemp("page")
    places = f'[data]\ncorpus = "{prose}"\nprepared = "{folder / "prepared"}"\n'
    (folder / "small.toml").write_text(places + "[model]\nnum_layers = 2\n")
    out = folder / "explain.html"
    with pytest.raises(SystemExit) as stop:
        command.run(explain, [str(folder / "small.toml"), "--out", str(out)])
    assert stop.value.code == 0
    return out


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
def test_a_page_loads_alone_fits_and_is_readable(
    browser: Browser, explained: Path, width: int, scheme: str
) -> None:
    opened = Opened(browser, explained, width, scheme)
    assert opened.complaints == []
    assert [url for url in opened.fetched if not url.startswith("data:")] == [explained.as_uri()]
    assert opened.page.evaluate("document.documentElement.scrollWidth") <= width
    found = Axe().run(opened.page, options={"runOnly": ["color-contrast", "scrollable-region-focusable"]})
    assert found.response["violations"] == []
    assert found.response["passes"]  # the rules had something to look at
    opened.page.close()


def test_faint_text_would_be_noticed(browser: Browser, explained: Path, tmp_path: Path) -> None:
    faint = tmp_path / "faint.html"
    faint.write_text(explained.read_text().replace("--soft: #4c5a6b", "--soft: #c9c9c9"))
    opened = Opened(browser, faint, LAPTOP, "light")
    found = Axe().run(opened.page, options={"runOnly": ["color-contrast"]})
    assert found.response["violations"]
    opened.page.close()


def test_tables_fold(browser: Browser, explained: Path) -> None:
    page = Opened(browser, explained, LAPTOP, "light").page
    section = page.locator("#projections details")
    assert section.count() == 3
    assert section.nth(0).locator("table").is_visible()
    assert not section.nth(1).locator("table").is_visible()
    section.nth(1).locator("summary").click()
    assert section.nth(1).locator("table").is_visible()
    page.close()
