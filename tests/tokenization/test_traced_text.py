"""Laws of texts that know where each character is from."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markupsafe import Markup

from llm_jax.tokenization.traced_text import TEMPLATE, TEXT, Traced, concat, origins, runs, traced

# Small letters are the template's, all else is text; so it can be seen whether an origin moved.
LETTERS = st.text("abß \n-AB\x1c", max_size=12)


def mixed(text: str) -> Traced:
    return Traced(text, bytes(TEMPLATE if letter.islower() else TEXT for letter in text))


def pieces(result: Any) -> list[str]:
    return [result] if isinstance(result, str) else list(result)


CARRIED: dict[str, Callable[[str, str], Any]] = {
    "add": lambda a, b: a + b,
    "add to plain": lambda a, b: "-A" + b + "-A",
    "times": lambda a, b: a * 2 + 2 * b,
    "item": lambda a, b: [a[0:3], a[::-1], a[-4:], (a + b + "A")[-1], (b + "A")[0]],
    "letters": lambda a, b: list(a),
    "join": lambda a, b: a.join([b, a, "A", b]),
    "strip": lambda a, b: [a.strip(), a.lstrip(), a.rstrip(), a.strip(b or "a")],
    "affixes": lambda a, b: [(b + a).removeprefix(b), (a + b).removesuffix(b), a.removeprefix(b)],
    "words": lambda a, b: [*a.split(), *a.split(None, 1), *a.rsplit(None, 1), *a.rsplit()],
    "split": lambda a, b: [*a.split("-"), *a.split(b or "a", 1), *a.rsplit(b or " ", 1), *a.rsplit("a")],
    "lines": lambda a, b: [*a.splitlines(), *a.splitlines(True)],
    "partition": lambda a, b: [*a.partition("-"), *a.rpartition(b or "a")],
    "replace": lambda a, b: [a.replace("a", b), a.replace("A", b, 1), a.replace("-A", b), a.replace("b", "")],
    "str": lambda a, b: str(a),
}


@pytest.mark.parametrize("name", CARRIED)
@settings(max_examples=50, deadline=None)
@given(first=LETTERS, second=LETTERS)
def test_an_operation_gives_the_text_of_a_str_and_each_letter_keeps_its_origin(
    name: str, first: str, second: str
) -> None:
    wanted = pieces(CARRIED[name](first, second))
    got = pieces(CARRIED[name](mixed(first), mixed(second)))
    assert got == wanted
    for piece in got:
        assert origins(piece) == mixed(piece)._origins


@settings(max_examples=50, deadline=None)
@given(text=LETTERS)
def test_an_operation_that_is_not_followed_gives_nothing_to_the_template(text: str) -> None:
    whole = traced(text, TEMPLATE)
    for plain in (whole.zfill(20), whole.center(20), whole.replace("", "a"), f"x{whole}"):
        assert set(origins(plain)) <= {TEXT}
    for method in ("upper", "lower", "title", "capitalize"):
        other = getattr(whole, method)()
        assert other == getattr(text, method)()
        assert set(origins(other)) <= ({TEXT} if len(other) > len(text) else {TEMPLATE})


def test_a_traced_text_is_a_str_to_whoever_looks() -> None:
    text = traced("a<b", TEMPLATE)
    assert (text == "a<b", hash(text) == hash("a<b"), {"a<b": 1}[text], "<" in text) == (True, True, 1, True)
    assert (text + Markup("<"), Markup("<") + text) == ("a&lt;b<", "<a&lt;b")  # as jinja2 escapes a str
    with pytest.raises(TypeError, match="'int'"):
        text + 1  # pyright: ignore
    assert concat([text, 1, None]) == "a<b1None"
    assert list(runs(text + "xy" + text)) == [(0, 3, TEMPLATE), (3, 5, TEXT), (5, 8, TEMPLATE)]
    assert list(runs("")) == []
