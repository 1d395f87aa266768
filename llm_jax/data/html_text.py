"""The text of HTML, as a reader sees it."""

import re
from html.parser import HTMLParser


def _names(listed: str) -> frozenset[str]:
    return frozenset(listed.split())


_NO_TEXT = _names("script style template noscript svg math iframe object canvas textarea select")
_BESIDE_TEXT = _names("nav header footer aside form menu button")
_PARAGRAPHS = _names(
    "html head title body main article section nav header footer aside form menu address blockquote center "
    "details dialog dir div dl fieldset figcaption figure h1 h2 h3 h4 h5 h6 hr ol p pre summary table ul"
)
_LINES = _names("br dd dt li tr tbody tfoot thead")
_INLINE = _names(
    "a abbr acronym area audio b base bdi bdo big button canvas caption cite code col colgroup data del dfn "
    "em embed font i iframe img input ins kbd label legend link map mark math meta meter noscript object "
    "option output param picture progress q rp rt ruby s samp script select small source span strike strong "
    "style sub sup svg td template textarea th time track tt u var video wbr"
)
_KNOWN = _PARAGRAPHS | _LINES | _INLINE
_EMPTY = _names("area base br col embed hr img input link meta param source track wbr")
_MARKUP = re.compile(r"<(?:!|/?([a-zA-Z][a-zA-Z0-9]*)[\s/>])|&#?\w+;")


def html_to_text(text: str, *, beside: bool = True) -> str:
    """Return a text without the tags of HTML: paragraphs, items of lists and rows of tables stand apart,
    entities are letters. What has neither tags nor entities, and what only looks like a tag, stays as it is.

    Args:
        text: HTML, or a part of a page.
        beside: whether menus, headers, footers and forms are kept.
    """
    if not any(not found[1] or found[1].lower() in _KNOWN for found in _MARKUP.finditer(text)):
        return text
    reader = _Reader(beside)
    reader.feed(text)
    reader.close()
    return reader.text()


class _Reader(HTMLParser):
    """Gathers texts, and the line ends that stand between them where blocks begin and end."""

    def __init__(self, beside: bool):
        super().__init__(convert_charrefs=True)
        self._dropped = _NO_TEXT if beside else _NO_TEXT | _BESIDE_TEXT
        self._inside: list[str] = []  # dropped elements that are open
        self._parts: list[tuple[str, int, bool]] = []  # text, line ends before it, whether spaces count
        self._ends = self._pre = 0
        self._has_blocks = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in _KNOWN:
            self.handle_data(self.get_starttag_text() or "")
        elif tag in self._dropped:
            self._inside.append(tag)
        self._pre += tag == "pre"
        self._break(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in _EMPTY or tag not in _KNOWN:
            self.handle_starttag(tag, attrs)
        else:
            self._break(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in _KNOWN:
            self.handle_data(f"</{tag}>")
        if tag in self._inside:
            del self._inside[self._inside.index(tag) :]
        self._pre = max(0, self._pre - (tag == "pre"))
        self._break(tag)

    def handle_data(self, data: str) -> None:
        if not self._inside:
            self._parts.append((data, self._ends, self._pre > 0))
            self._ends = 0

    def text(self) -> str:
        if not self._has_blocks:  # lines are those of a text with a few tags in it
            return "".join(data for data, _, _ in self._parts)
        lines, line, ends = [], "", 0
        for data, before, as_is in self._parts:
            ends = max(ends, before)
            data = data if as_is else re.sub(r"[ \t\r\n\f]+", " ", data)
            if ends and data.strip():
                lines += [line.rstrip(), *[""] * (ends - 1)]
                line, ends = "", 0
            line += data if as_is else data[line[-1:] in ("", " ", "\n") and data[:1] == " " :]
        return "\n".join([*lines, line]).strip()

    def _break(self, tag: str) -> None:
        ends = 2 if tag in _PARAGRAPHS else tag in _LINES
        self._ends = max(self._ends, ends)
        self._has_blocks = self._has_blocks or bool(ends)
        if tag in ("td", "th"):
            self.handle_data(" ")
