"""Styles of one page leave the others alone."""

import re
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "llm_jax"
SHARED = PACKAGE / "display" / "templates" / "page.css"
OWN = sorted({*PACKAGE.glob("*/templates/*.css")} - {SHARED})
# Of a shared piece, which a page shows in another way.
MEANT = {"tokens", "heat", "mono"}


def classes(path: Path) -> set[str]:
    """The classes that a sheet's selectors name."""
    return set(re.findall(r"\.([a-zA-Z][\w-]*)", re.sub(r"\{[^{}]*\}|/\*.*?\*/", " ", path.read_text())))


@pytest.mark.parametrize("path", OWN, ids=lambda path: path.name)
def test_a_page_has_no_class_that_the_shared_style_has_another_use_for(path: Path) -> None:
    assert classes(path) & classes(SHARED) - MEANT == set()


def test_the_sheets_are_found_and_read() -> None:
    assert {path.name for path in OWN} >= {"xray.css", "curves.css", "sortable.css"}
    assert {"scale", "bar", "facts", "ramp"} <= classes(SHARED)
