"""Curves in a real browser: values under the pointer, other axes, renewal, tables that sort; no script."""

import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Error, Page

from tests.browser.opened import LAPTOP, PHONE, Opened
from tests.support.commands import metrics_of


@pytest.fixture
def report(browser: Browser, pages: dict[str, Path]) -> Iterator[Opened]:
    opened = Opened(browser, pages["report en"], LAPTOP, "light")
    yield opened
    assert opened.complaints == []
    assert len(opened.fetched) == 1
    opened.page.close()


def keys(page: Page) -> str:
    """What the loss's chart says of a place."""
    return " ".join(page.locator("#loss .keys").inner_text().split())


def point_at(page: Page, share: float) -> None:
    """The pointer over the loss's curves, so far from their left."""
    svg = page.locator("#loss .plot > svg")
    svg.scroll_into_view_if_needed()
    box = svg.bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + share * box["width"], box["y"] + box["height"] / 2)


def test_values_under_the_pointer_are_those_of_the_record(report: Opened, pages: dict[str, Path]) -> None:
    page = report.page
    recorded = {
        entry["step"]: entry
        for entry in metrics_of(pages["report en"].parent / "one")
        if "train_loss" in entry
    }
    seen = set()
    for share in (0.3, 0.5, 0.75):
        point_at(page, share)
        found = re.match(r"step (\d+) training ([\d.]+) validation ([\d.]+)", keys(page))
        assert found, keys(page)
        step, training = int(found[1]), float(found[2])
        assert training == pytest.approx(recorded[step]["train_loss"], rel=1e-3)
        seen.add(step)
    assert len(seen) > 1
    assert page.locator("#loss .cross").get_attribute("visibility") == "visible"
    page.mouse.move(0, 0)
    assert page.locator("#loss .cross").get_attribute("visibility") == "hidden"
    assert keys(page).startswith("step 40")


def test_the_arrow_keys_go_from_value_to_value(report: Opened) -> None:
    page = report.page
    page.locator("#loss .plot").focus()
    page.keyboard.press("Home")
    first = keys(page)
    page.keyboard.press("ArrowRight")
    second = keys(page)
    page.keyboard.press("ArrowLeft")
    assert keys(page) == first != second
    page.keyboard.press("Escape")
    assert keys(page).startswith("step 40")


def test_the_axis_is_steps_or_tokens_or_time_and_logarithmic(report: Opened) -> None:
    page = report.page
    name = lambda: page.locator("#loss .axis-name").text_content()  # noqa: E731
    line = lambda: page.locator("#loss polyline").first.get_attribute("points")  # noqa: E731
    assert (name(), keys(page)[:7]) == ("steps", "step 40")
    lines = [line()]
    page.get_by_role("button", name="tokens").click()
    assert (name(), keys(page)[:12]) == ("tokens", "tokens 2,560")
    page.get_by_role("button", name="time").click()
    assert re.fullmatch(r"time \((s|min)\)", name() or "")
    assert re.match(r"time [\d.]+ (s|min)", keys(page))
    lines.append(line())
    for button in ("log x", "log y"):
        page.get_by_role("button", name=button).click()
        assert page.get_by_role("button", name=button).get_attribute("aria-pressed") == "true"
        lines.append(line())
    assert len(set(lines)) == 4
    page.reload()
    assert line() == lines[-1]  # what was chosen stays
    report.fetched.pop()


@pytest.mark.parametrize("width", [LAPTOP, PHONE])
def test_a_chart_fits_into_its_place(browser: Browser, pages: dict[str, Path], width: int) -> None:
    for name in ("report en", "comparison zh"):
        page = Opened(browser, pages[name], width, "light").page
        plots = page.locator(".plot > svg")
        assert plots.count() >= 6
        for at in range(plots.count()):
            box = plots.nth(at).bounding_box()
            assert box is not None
            assert box["width"] > 240
            assert box["height"] > 150
            assert box["x"] + box["width"] <= width
            texts = plots.nth(at).locator("text")
            ends = [texts.nth(each).bounding_box() for each in range(texts.count())]
            assert all(end["x"] >= 0 and end["x"] + end["width"] <= width for end in ends if end)
        page.close()


def test_without_scripts_the_pictures_are_there_and_nothing_asks_for_a_choice(
    browser: Browser, pages: dict[str, Path]
) -> None:
    context = browser.new_context(java_script_enabled=False)
    for name, count in (("report en", 6), ("comparison en", 6)):
        page = context.new_page()
        page.goto(pages[name].as_uri())
        assert page.locator("figure svg[role=img]").count() >= count
        assert not page.locator(".choices").is_visible()
        assert page.locator(".plot").count() == 0
    context.close()


@pytest.mark.parametrize("scripts", [True, False])
def test_the_page_of_a_run_in_training_renews_itself_and_stops_when_it_ends(
    browser: Browser, pages: dict[str, Path], tmp_path: Path, scripts: bool
) -> None:
    page_of_run = pages["report en"].read_text()
    live = page_of_run.replace(
        "</head>", '<noscript><meta http-equiv="refresh" content="1"></noscript></head>'
    )
    live = live.replace("<h1>", '<p id="live" data-seconds="1">live</p><h1>')
    file = tmp_path / "report.html"
    file.write_text(live)
    context = browser.new_context(java_script_enabled=scripts)
    page, loads = context.new_page(), []
    page.on("load", lambda _: loads.append(len(loads)))
    page.goto(file.as_uri())
    page.wait_for_event("load", timeout=30_000)
    file.write_text(page_of_run.replace("<h1>", '<h1 id="ended">'))
    page.wait_for_selector("#ended", timeout=30_000)
    count = len(loads)
    page.wait_for_timeout(2500)
    assert len(loads) == count
    context.close()


def test_a_live_page_waits_while_somebody_reads_a_value(
    browser: Browser, pages: dict[str, Path], tmp_path: Path
) -> None:
    file = tmp_path / "report.html"
    text = pages["report en"].read_text()
    file.write_text(text.replace("<h1>", '<p id="live" data-seconds="1">live</p><h1>'))
    page = browser.new_page(viewport={"width": LAPTOP, "height": 900})
    page.clock.install(time=0)
    page.clock.pause_at(1)  # from here on the page's time is that of `run_for`
    page.goto(file.as_uri())
    page.evaluate("window.same = true")
    point_at(page, 0.5)
    page.clock.run_for(10_000)
    assert page.evaluate("window.same")
    page.mouse.move(0, 0)
    with suppress(Error):  # the page goes while its clock runs
        page.clock.run_for(2000)
    page.wait_for_function("!window.same", timeout=30_000, polling=100)
    page.close()


def test_the_table_of_runs_sorts_by_any_column(browser: Browser, pages: dict[str, Path]) -> None:
    page = Opened(browser, pages["comparison en"], LAPTOP, "light").page
    rows = page.locator("table.sortable tbody tr")
    column = lambda at: [rows.nth(row).locator("td").nth(at).inner_text() for row in range(rows.count())]  # noqa: E731
    heads = page.locator("table.sortable th")
    for at in range(heads.count()):
        heads.nth(at).locator("button").click()
        assert heads.nth(at).get_attribute("aria-sort") == "ascending"
        rising = column(at)
        heads.nth(at).locator("button").click()
        assert heads.nth(at).get_attribute("aria-sort") == "descending"
        if len(set(rising)) > 1:
            assert column(at) == rising[::-1]
    heads.nth(2).locator("button").click()
    losses = [float(text) for text in column(2)]
    assert losses == sorted(losses)
    page.close()
