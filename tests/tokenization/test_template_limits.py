"""A chat template is a stranger's program: whatever it does, it ends soon, and the next one renders."""

import os

import pytest

from llm_jax.base.errors import DataError
from llm_jax.tokenization import chat_template
from llm_jax.tokenization.chat_template import render
from llm_jax.tokenization.traced_text import TEMPLATE, TEXT, runs

GROWING = (
    "{% set n = namespace(v=_) %}{% for i in range(99) %}{% set n.v = # %}{% endfor %}{{ n.v | length }}"
)
ENDLESS = {
    "loops in loops": "{% for a in range(99999) %}" * 4 + "x" + "{% endfor %}" * 4,
    "a power": "{{ 2 ** (2 ** 40) }}",
    "a power of what was typed": "{{ (messages | length + 1) ** (2 ** 40) }}",
    "numbers that are squared": GROWING.replace("_", "3").replace("#", "n.v * n.v"),
    "lipsum": "{{ lipsum(n=10 ** 9) }}",
    "a text repeated": "{{ 'a' * 10 ** 10 }}",
    "a text that doubles": GROWING.replace("_", "'a'").replace("#", "n.v ~ n.v"),
    "a text that is replaced": GROWING.replace("_", "'aa'").replace("#", "n.v | replace('a', 'aa')"),
    "a list that doubles": GROWING.replace("_", "[1]").replace("#", "n.v + n.v"),
    "a list of itself twice": GROWING.replace("_", "[1]")
    .replace("#", "[n.v, n.v]")
    .replace("length", "string"),
    "a list repeated": "{{ ([0] * 10 ** 10) | length }}",
    "a width": "{{ '%1000000000d' | format(1) }}",
    "another width": "{{ '{:>10000000000}'.format(1) }}",
    "a centre": "{{ 'a' | center(10 ** 10) }}",
    "an indent": "{{ ('a\n' * 10 ** 6) | indent(10 ** 5) }}",
    "a join": "{{ range(99999) | join('a' * 10 ** 6) }}",
    "bytes of a number": "{{ (1).to_bytes(10 ** 10, 'big') | length }}",
    "recursion that branches": "{% macro f(n) %}{% if n %}"
    "{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(40) }}",
    "JSON": "{{ range(1000) | list | tojson(indent=10 ** 7) }}",
    "much text": "{{ 'a' * 20000000 }}",
}


def rendered(template: str, content: str = "<hi>") -> str:
    return render(template, [{"role": "user", "content": content}], add_generation_prompt=True, tokens={})


@pytest.mark.parametrize("name", ENDLESS)
def test_a_template_without_end_is_refused_and_the_next_one_renders(name: str) -> None:
    with pytest.raises(
        DataError, match=r"could not be rendered: it (takes more than|needs more|gives)"
    ) as caught:
        rendered(ENDLESS[name])
    assert "\n" not in str(caught.value)
    assert rendered("{{ messages[0].content }}!") == "<hi>!"


def test_a_template_that_ends_the_process_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chat_template, "_START", "import sys; sys.path[:] = {path!r}; raise SystemExit(7)")
    chat_template._process.cache_clear()
    with pytest.raises(DataError, match="status 7"):
        rendered("a")
    chat_template._process.cache_clear()


def test_memory_is_bounded_where_the_system_has_no_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    unlimited = chat_template._START.replace("serve()", "import resource\nresource.RLIMIT_AS = -1\nserve()")
    monkeypatch.setattr(chat_template, "_START", unlimited)
    chat_template._process.cache_clear()
    with pytest.raises(DataError, match=r"could not be rendered: it (needs more|takes more)"):
        rendered(ENDLESS["a list that doubles"])
    chat_template._process.cache_clear()


def test_who_wrote_each_character_comes_back_with_the_text() -> None:
    text = rendered("<|a|>{{ messages[0].content }}<|b|>\u00e9", "x\ud800 \U0001f600\u2028")
    assert text == "<|a|>x\ud800 \U0001f600\u2028<|b|>\u00e9"
    assert [(text[begin:end], origin) for begin, end, origin in runs(text)] == [
        ("<|a|>", TEMPLATE),
        ("x\ud800 \U0001f600\u2028", TEXT),
        ("<|b|>\u00e9", TEMPLATE),
    ]


def test_the_process_lives_on_between_conversations_and_is_started_anew() -> None:
    rendered("a")
    first = chat_template._process(os.getpid())._process
    rendered("b")
    assert first is not None
    assert chat_template._process(os.getpid())._process is first
    first.kill()
    first.wait()
    assert rendered("c") == "c"
