"""What a chat template may do and what not."""

import pytest

from llm_jax.data.chat_template import render
from llm_jax.errors import DataError


def rendered(template: str, *contents: str) -> str:
    messages = [{"role": "user", "content": content} for content in contents or ("<hi>",)]
    return render(template, messages, add_generation_prompt=True, bos_token="<s>", eos_token="</s>")


def test_a_template_sees_the_messages_and_what_transformers_offers() -> None:
    stop = "    {% if loop.index > 2 %}{% break %}{% endif %}\n"
    turns = "{% for m in messages %}\n" + stop + "{{ m.content }}|{% endfor %}"
    assert rendered(turns, "a", "b", "c") == "a|b|"
    assert rendered("{{ bos_token }}{{ eos_token }}{{ add_generation_prompt }}") == "<s></s>True"
    assert rendered("{{ messages | tojson }}") == '[{"role": "user", "content": "<hi>"}]'
    assert (
        rendered("{{ {'b': 1, 'a': 'é'} | tojson(indent=1, sort_keys=True) }}") == '{\n "a": "é",\n "b": 1\n}'
    )
    assert rendered("{{ strftime_now('%d') | length }}{{ tools is none }}") == "2True"
    assert rendered("{% generation %}{% set x = 1 %}say{% endgeneration %}{{ x }}") == "say"
    count = "{% set n = namespace(a=0) %}{% for m in messages %}{% set n.a = n.a + 1 %}{% endfor %}{{ n.a }}"
    assert rendered(count, "a", "b") == "2"


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("{{ raise_exception('no\nsystem') }}", "no system"),
        ("{% if %}", "Expected an expression"),
        ("{% generation %}", "endgeneration"),
        ("{{ messages[0].no.where }}", "no attribute"),
        ("{{ 1 / 0 }}", "division by zero"),
        ("{{ messages.append(1) }}", "unsafe"),
        ("{{ ''.__class__.__mro__ }}", "unsafe"),
        ("{{ range(10 ** 9) | list }}", "too big"),
        ("{% set n = namespace(__class__=1) %}", "underscore"),
        ("{% set n = namespace() %}{% set n._a = 1 %}", "underscore"),
        ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "recursion"),
        ("{% include 'file' %}", "loader"),
    ],
)
def test_what_a_template_may_not_do_is_refused_in_one_line(template: str, words: str) -> None:
    with pytest.raises(DataError, match=words) as caught:
        rendered(template)
    assert "\n" not in str(caught.value)
