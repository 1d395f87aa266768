"""The documents hold together: links lead somewhere, README.zh.md has the commands and figures of README.md,
whose figures are those of the page of results, and what describes the package agrees with it.
"""

import importlib.util
import re
import tomllib
from pathlib import Path

import pytest

from llm_jax.__main__ import COMMANDS
from tests.support.shared_data import ROOT

ENGLISH, CHINESE = (ROOT / "README.md").read_text(), (ROOT / "README.zh.md").read_text()
RESULTS = (ROOT / "docs" / "results.md").read_text()
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), ROOT / "benchmarks" / "RESULTS.md"])
# All of docs/ but the log, in which commands stand as they were given.
GUIDES = [page for page in (ROOT / "docs").glob("*.md") if page.stem != "experiments"]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def prose(text: str) -> str:
    """A page without its blocks of code and its code in lines."""
    return re.sub(r"`[^`\n]*`", "", re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL))


def links(text: str) -> list[str]:
    return re.findall(r"\]\(([^)\s]+)\)", prose(text))


def blocks(text: str) -> list[tuple[str, str]]:
    """Each block of code with its language."""
    return re.findall(r"^```(\w*)\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def tables(text: str) -> list[list[str]]:
    """The rows of each table, its head left out."""
    found = re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE)
    return [table.splitlines()[2:] for table in found]


def anchors(page: Path) -> set[str]:
    """GitHub's names of a page's headings."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for link in links(page.read_text()):
        if ":" in link:
            continue
        target, _, anchor = link.partition("#")
        found = page.parent / target if target else page
        assert found.exists(), link
        assert not anchor or anchor in anchors(found), link


def without_remarks(language: str, block: str) -> list[str]:
    """What both languages share of a block: commands and code without remarks; of a tree, the names."""
    if language:
        lines = [re.sub(r"\s*#.*", "", line) for line in block.splitlines()]
        return [line for line in lines if line.strip()]
    return [re.split(r"\s{3,}", line.strip())[0] for line in block.splitlines()]


def test_both_readmes_have_the_same_code_links_and_sections() -> None:
    shared = [
        [(language, without_remarks(language, block)) for language, block in blocks(text)]
        for text in (ENGLISH, CHINESE)
    ]
    assert shared[0] == shared[1]
    other = {"README.md": "README.zh.md"}
    assert [other.get(link, link) for link in links(CHINESE)] == [
        other.get(link, link) for link in links(ENGLISH)
    ]
    assert len(re.findall(r"^#+ ", ENGLISH, re.MULTILINE)) == len(re.findall(r"^#+ ", CHINESE, re.MULTILINE))


def test_both_readmes_have_the_same_figures() -> None:
    """In tables, row by row; and the code within lines, in any order, since sentences are built otherwise."""
    figures, code = r"\d[\d.,]*\d|\d", r"`[^`\n]+`"
    assert len(tables(ENGLISH)) == len(tables(CHINESE)) > 0
    for english, chinese in zip(tables(ENGLISH), tables(CHINESE), strict=True):
        assert [re.findall(figures, row) for row in english] == [re.findall(figures, row) for row in chinese]
    inline = [
        sorted(re.findall(code, re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)))
        for text in (ENGLISH, CHINESE)
    ]
    assert inline[0] == inline[1]


def test_the_readmes_figures_are_those_of_the_page_of_results() -> None:
    rows = {row for table in tables(RESULTS) for row in table}
    assert not [row for table in tables(ENGLISH) for row in table if row not in rows]


def test_the_readme_is_a_screen_and_a_half() -> None:
    assert ENGLISH.count("\n") <= 95


def test_every_command_in_a_block_is_a_command() -> None:
    for page in PAGES:
        text = "".join(block for language, block in blocks(page.read_text()) if language == "bash")
        assert set(re.findall(r"^llm-jax ([a-z]+)", text, re.MULTILINE)) <= COMMANDS.keys(), page
    assert not [
        page.name for page in (*ROOT.glob("*.md"), *GUIDES) if "python -m llm_jax" in page.read_text()
    ]


def test_every_configuration_that_is_named_comes_along() -> None:
    for page in (*ROOT.glob("*.md"), *GUIDES):
        named = set(re.findall(r"configs/\w+\.toml", page.read_text()))
        assert not [path for path in named if not (ROOT / path).is_file()], page


def test_descriptions_agree_with_the_package() -> None:
    citation = (ROOT / "CITATION.cff").read_text()
    (author,) = (each["name"] for each in PROJECT["authors"])
    assert f"\nversion: {PROJECT['version']}\n" in citation
    assert f"\nlicense: {PROJECT['license']}\n" in citation
    assert f"\n  - name: {author}\n" in citation
    changelog = (ROOT / "CHANGELOG.md").read_text()
    assert PROJECT["version"] in changelog


def test_the_readme_on_a_package_index_has_no_dead_link() -> None:
    found = importlib.util.spec_from_file_location("hatch_build", ROOT / "hatch_build.py")
    assert found is not None
    assert found.loader is not None
    build = importlib.util.module_from_spec(found)
    found.loader.exec_module(build)
    shown = build.index_readme(ENGLISH, "https://host.example/owner/name", "1.2")
    pictures = re.findall(r"!\[[^]]*\]\(([^)]*)\)", shown)
    assert len(pictures) == 2
    assert all(picture.startswith("https://host.example/owner/name/raw/v1.2/docs/") for picture in pictures)
    assert all(link.startswith("https://") for link in links(shown))
    assert build.project_urls("https://host.example/owner/name", "1.2")["Issues"].endswith("/name/issues")
    bare = build.index_readme(ENGLISH, "", "1.2")
    assert not links(bare)
    assert build.project_urls("", "1.2") == {}
