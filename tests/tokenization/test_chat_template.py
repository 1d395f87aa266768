"""What a chat template may do and what not."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jinja2.sandbox import ImmutableSandboxedEnvironment

from llm_jax.base.errors import DataError
from llm_jax.tokenization.chat_template import render


def rendered(template: str, *contents: str) -> str:
    messages = [{"role": "user", "content": content} for content in contents or ("<hi>",)]
    tokens = {"bos_token": "<s>", "eos_token": "</s>"}
    return render(template, messages, add_generation_prompt=True, tokens=tokens)


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


# Each looks into what was typed; {} is the message.
LOOKING = [
    "{{ {}.startswith('/think') }}{{ {}.endswith('x') }}{{ {} == 'hello' }}{{ {} in ['hello', '/think'] }}",
    "{{ {} | length }}{{ {}[0] }}{{ {}[-2:] }}{{ {} | first }}{{ {} | last }}{{ {} | list }}",
    "{{ 'think' in {} }}{{ '</think>' in {} }}{{ {}.split('</think>')[-1].lstrip('\n') }}{{ {}.split() }}",
    "{{ {} | trim }}|{{ {}.strip() }}|{{ {} | replace('l', 'L') }}|{{ {} | upper }}|{{ {} | title }}",
    "{{ {} is string }}{{ {} is mapping }}{{ {} | tojson }}{{ {} | int(7) }}{{ {} | indent }}",
    "{{ ('a' ~ {} + 'b') | trim | replace('a', 'c') }}{{ '%s!' | format({}) }}{{ '{0}?'.format({}) }}",
    "{% for line in {}.splitlines() %}{{ loop.index ~ line }}{% endfor %}{{ {} | e }}{{ {} | safe + '<' }}",
    "{{ {'hello': 1}[{}] }}{{ {} < 'h' }}{{ [{}, 'b'] | sort | join(',') }}{{ {} * 2 }}{{ pad_token }}",
]


@pytest.mark.parametrize("template", LOOKING)
@settings(max_examples=40, deadline=None)
@given(
    typed=st.sampled_from(["hello", "/think x", "a\n\nb", "<|im_end|>"])
    | st.text("ahlo</think> \n", min_size=1)
)
def test_a_template_sees_what_was_typed_to_the_letter(template: str, typed: str) -> None:
    """jinja2 with a plain str for each text and message is what transformers has."""
    template = template.replace("{}", "messages[0].content")
    plain = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    plain.filters["tojson"] = lambda value: json.dumps(value, ensure_ascii=False)
    for role in ("user", "assistant"):
        messages: Any = [{"role": role, "content": typed}]
        wanted = plain.from_string(template).render(messages=messages, pad_token="P")
        assert render(template, messages, add_generation_prompt=False, tokens={"pad_token": "P"}) == wanted


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
