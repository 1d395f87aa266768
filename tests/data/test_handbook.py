"""The embedded corpus is real prose: long enough, in chapters, and no more repetitive than a published
textbook.
"""

import gzip
import re
from collections import Counter

import pytest

from tests.conftest import ROOT
from tests.support.shared_data import SharedData


@pytest.fixture(scope="module")
def handbook() -> str:
    return (ROOT / "data" / "sales_handbook.txt").read_bytes().decode("ascii")


def gzip_ratio(text: str) -> float:
    return len(gzip.compress(text.encode(), 9)) / len(text.encode())


def share_of_repeated_runs(text: str, length: int = 8) -> float:
    """Share of the text's runs of `length` words that occur more than once."""
    words = text.split()
    runs = Counter(zip(*(words[start:] for start in range(length)), strict=False))
    return sum(count for count in runs.values() if count > 1) / runs.total()


def test_it_is_long_and_has_chapters_that_differ(handbook: str) -> None:
    assert len(handbook) >= 150_000
    headings = re.findall(r"^Chapter (\d+): (.+)$", handbook, re.MULTILINE)
    assert [int(number) for number, _ in headings] == list(range(1, len(headings) + 1))
    assert len({title for _, title in headings}) == len(headings) >= 20
    assert min(map(len, re.split(r"^Chapter \d+: ", handbook, flags=re.MULTILINE)[1:])) > 4_000
    assert handbook.count("The salesperson") >= 50


def test_it_is_no_more_repetitive_than_a_real_textbook(handbook: str, shared_data: SharedData) -> None:
    textbook = (shared_data / "sales_textbook.txt").read_text(encoding="utf-8")
    alike = textbook[: len(handbook)]  # a shorter text repeats less
    assert gzip_ratio(handbook) >= max(gzip_ratio(textbook), gzip_ratio(alike))
    assert share_of_repeated_runs(handbook) <= min(
        share_of_repeated_runs(textbook), share_of_repeated_runs(alike)
    )


def test_the_measures_tell_filler_from_prose(handbook: str) -> None:
    filler = "The salesperson listens to the customer and then presents the product number one. " * 500
    assert gzip_ratio(filler) < 0.05 < gzip_ratio(handbook)
    assert share_of_repeated_runs(filler) > 0.99


def test_the_chinese_text_is_prose_in_chapters_that_a_small_model_can_learn() -> None:
    text = (ROOT / "data" / "corner_shop_zh.txt").read_text(encoding="utf-8")
    counts = Counter(text)
    assert 15_000 <= len(text.encode()) <= 30_000
    assert len(re.findall("^第.+章 .+$", text, re.MULTILINE)) == 15
    assert sum("\u4e00" <= letter <= "\u9fff" for letter in text) > 0.8 * len(text)
    assert sum(count for count in counts.values() if count >= 3) > 0.95 * len(text)
    runs = Counter(text[start : start + 12] for start in range(len(text) - 12))
    assert sum(count for count in runs.values() if count > 1) < 0.05 * runs.total()
