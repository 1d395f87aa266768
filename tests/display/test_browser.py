"""A page in a browser: opened beside the process where there is one, and named where there is none."""

import os
import time
from pathlib import Path

import pytest

from llm_jax.display.browser import open_page


def test_a_page_is_opened_by_the_browser_that_was_chosen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    browser, asked, lines = tmp_path / "browser", tmp_path / "asked", []
    browser.write_text(f'#!/bin/sh\necho noise\necho "$1" > {asked}.part\nmv {asked}.part {asked}\n')
    browser.chmod(0o755)
    monkeypatch.setenv("BROWSER", f"{browser} %s")
    page = tmp_path / "a page.html"
    open_page(page, lines.append)
    for _ in range(300):
        if asked.exists():
            break
        time.sleep(0.1)
    assert asked.read_text().strip() == page.as_uri()
    assert lines == []


def test_where_there_is_no_browser_the_page_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("sys.platform", "linux")
    lines: list[str] = []
    monkeypatch.chdir(tmp_path)
    open_page(Path("page.html"), lines.append)
    assert lines == [f"no browser here: open {tmp_path / 'page.html'} in one"]
    assert os.listdir(tmp_path) == []
