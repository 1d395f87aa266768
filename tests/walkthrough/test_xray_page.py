"""The X-ray's page against hostile tokens, long texts and large vocabularies."""

import json
import math
import shutil
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from llm_jax.base.tree import Tree
from llm_jax.config.model import ModelConfig
from llm_jax.display.page import render
from llm_jax.display.tokens import token_text
from llm_jax.walkthrough.page import _TEMPLATES
from llm_jax.walkthrough.xray import (
    Origin,
    Overlap,
    Passage,
    XRay,
    make_xray,
    mark_spans,
)
from tests.walkthrough.test_xray import WORDS, look

HOSTILE = [
    "</script><script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "'\n",
    "<!--",
    "{{ 7 * 7 }}",
]
HOSTILE += ["&lt;", "\u2028", " ", "</style>", "</p>", "\\", "\x00"]


ORIGIN = Origin(
    mark_spans(HOSTILE, [(0, 3), (4, 2)]),
    [Passage(HOSTILE[0], HOSTILE[1], HOSTILE[8], 1), Passage("a", "b", "c", 5)],
    [Overlap(HOSTILE[1], 3, 12), Overlap("", 0, 0)],
)


class Elements(HTMLParser):
    """Tags, attributes and texts of a page as a browser splits it."""

    def __init__(self, html: str):
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.texts: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


class Recorded(dict[str, str]):
    """A dict that knows which of its values were read."""

    def __init__(self, words: dict[str, str]):
        super().__init__(words)
        self.read: set[str] = set()

    def __getitem__(self, name: str) -> str:
        self.read.add(name)
        return super().__getitem__(name)


@pytest.fixture
def templates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The walkthrough's templates, and one of a page that has nothing but an X-ray."""
    folder = tmp_path / "templates"
    shutil.copytree(_TEMPLATES, folder)
    (folder / "only.html.j2").write_text(
        '{% extends "base.html.j2" %}{% from "xray.html.j2" import xray %}'
        "{% block content %}{{ xray(x, words) }}{% endblock %}"
    )
    monkeypatch.setattr(f"{__name__}._TEMPLATES", folder)
    return folder


def show(picture: XRay, words: dict[str, str] = WORDS) -> str:
    return render(_TEMPLATES / "only.html.j2", language="en", title="X-ray", x=picture, words=words)


def test_hostile_tokens_stay_text(
    templates: Path, params: Tree, config: ModelConfig, text: np.ndarray
) -> None:
    def pieces(token: int) -> bytes:
        return HOSTILE[token % len(HOSTILE)].encode()

    tame, _ = look(params, config, text, token_bytes=lambda _: b"x", origin=ORIGIN)
    tame = tame._replace(
        origin=Origin(
            [token._replace(text="x") for token in ORIGIN.generated],
            [passage._replace(before="x", matched="x", after="x") for passage in ORIGIN.passages],
            [sample._replace(text="x") for sample in ORIGIN.samples],
        )
    )
    hostile, _ = look(params, config, text, token_bytes=pieces, origin=ORIGIN)
    expected, got = Elements(show(tame)), Elements(show(hostile))
    # Tokens with a line's end bring a <br> each, and nothing else.
    assert [tag for tag in got.tags if tag != "br"] == expected.tags
    assert {name for name, _ in got.attributes} == {name for name, _ in expected.attributes}
    data = next(json.loads(each) for each in got.texts if each.startswith('{"attention"'))
    assert [token[0] for token in data["tokens"]] == [token_text(pieces(int(token))) for token in text]
    for piece in HOSTILE[:2]:
        assert piece in got.texts


def test_the_page_asks_nothing_of_a_network(
    templates: Path, params: Tree, config: ModelConfig, text: np.ndarray
) -> None:
    html = show(look(params, config, text, origin=ORIGIN._replace(generated=[], passages=[], samples=[]))[0])
    forbidden = "http: https: src= href= url( @import fetch( import( XMLHttpRequest sendBeacon innerHTML"
    kept = html.replace('<link rel="icon" href="data:,">', "")
    assert [word for word in forbidden.split() if word in kept] == []


def test_every_word_is_read(templates: Path, params: Tree, config: ModelConfig, text: np.ndarray) -> None:
    words = Recorded(WORDS)
    show(look(params, config, text, origin=ORIGIN)[0], words)
    assert words.read == set(WORDS)


def test_a_text_that_was_not_generated_has_no_origin(
    templates: Path, params: Tree, config: ModelConfig, text: np.ndarray
) -> None:
    picture, _ = look(params, config, text)
    assert WORDS["origin_title"] not in show(picture)
    assert WORDS["origin_title"] in show(picture._replace(origin=ORIGIN))


def test_a_long_text_and_a_large_vocabulary_make_a_small_page(templates: Path) -> None:
    length, vocab_size = 128, 100_256
    generator = np.random.default_rng(0)
    logits_TV = generator.normal(size=(length, vocab_size)).astype(np.float32)
    weights = generator.dirichlet(np.ones(length), size=(4, 4, length))
    picture = make_xray(
        generator.integers(0, vocab_size, length + 1),
        logits_TV,
        np.zeros((5, length, 8), np.float32),
        weights,
        read_out=lambda _: logits_TV,
        token_bytes=lambda token: b" token%d" % token,
    )
    assert picture.blind_nats == math.log(vocab_size)
    assert len(show(picture)) < 1_500_000
