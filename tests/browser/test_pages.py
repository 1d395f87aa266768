"""The pages in a real browser: nothing fails, nothing is fetched, all fits, reads and folds."""

from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser

from llm_jax.display.words import LANGUAGES
from tests.browser.conftest import NAMES
from tests.browser.opened import LAPTOP, PHONE, Opened

# Colours know no language: the second one is looked at in one scheme.
LOOKS = [
    (f"{name} {language}", width, scheme)
    for name in NAMES
    for width in (LAPTOP, PHONE)
    for language, scheme in (("en", "light"), ("en", "dark"), ("zh", "light"))
]


@pytest.mark.parametrize(("name", "width", "scheme"), LOOKS)
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
    faint.write_text(pages["report en"].read_text().replace("--soft: #4c5a6b", "--soft: #c9c9c9"))
    opened = Opened(browser, faint, LAPTOP, "light")
    found = Axe().run(opened.page, options={"runOnly": ["color-contrast"]})
    assert found.response["violations"]
    opened.page.close()


def test_pointing_at_a_token_shows_where_a_head_looks(browser: Browser, pages: dict[str, Path]) -> None:
    page = Opened(browser, pages["explain en"], LAPTOP, "light").page
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
    page = Opened(browser, pages["explain en"], LAPTOP, "light").page
    section = page.locator("#projections details")
    assert section.count() == 3
    assert section.nth(0).locator("table").is_visible()
    assert not section.nth(1).locator("table").is_visible()
    section.nth(1).locator("summary").click()
    assert section.nth(1).locator("table").is_visible()
    page.close()


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("width", [LAPTOP, PHONE])
def test_the_legends_of_the_x_ray_have_their_colours_and_their_numbers(
    browser: Browser, pages: dict[str, Path], width: int, language: str
) -> None:
    page = Opened(browser, pages[f"explain {language}"], width, "light").page
    legends = page.locator(".xray .legend")
    assert legends.count() == 3
    for at in range(3):
        strip = legends.nth(at).locator(".strip")
        box = strip.bounding_box()
        assert box is not None
        assert box["width"] > 250
        assert box["height"] > 25
        colours = strip.evaluate("element => getComputedStyle(element, '::before').backgroundImage")
        assert "gradient" in colours
        numbers = strip.locator("> span")
        places = [numbers.nth(number).bounding_box() for number in range(numbers.count())]
        lefts = [place["x"] for place in places if place]
        assert len(lefts) >= 5
        assert lefts == sorted(lefts)
        assert lefts[-1] - lefts[0] > 0.9 * box["width"] - 20
    page.close()
