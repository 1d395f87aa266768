"""Messages as the text that a model of conversations was trained on, by the model's own jinja2 template.

A template is a program of somebody else's: it runs in jinja2's sandbox, sees strings, lists and dicts alone,
and changes none of them. What it may call is what transformers offers, so that both render the same text.
"""

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from jinja2 import TemplateError
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension, loopcontrols
from jinja2.nodes import Node, Scope
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace

from llm_jax.errors import DataError


def render(
    template: str,
    messages: Sequence[Mapping[str, str]],
    *,
    add_generation_prompt: bool,
    bos_token: str,
    eos_token: str,
) -> str:
    """The conversation as one text, special tokens written out.

    Args:
        template: the model's template, from its tokenizer's configuration or its GGUF file.
        messages: each with `role` and `content`.
        add_generation_prompt: whether the text ends where the assistant begins to speak.
        bos_token: what the template calls by that name.
        eos_token: likewise.

    Raises:
        DataError: the template is damaged, refuses these messages, or does what it may not.
    """
    plain = [{str(key): str(value) for key, value in message.items()} for message in messages]
    try:
        return (
            _environment()
            .from_string(template)
            .render(
                messages=plain,
                tools=None,
                documents=None,
                add_generation_prompt=add_generation_prompt,
                bos_token=bos_token,
                eos_token=eos_token,
            )
        )
    except Exception as error:  # a template can raise whatever an expression of Python can
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise DataError(f"the chat template could not be rendered: {reason}") from error


def _environment() -> ImmutableSandboxedEnvironment:
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols]
    )
    environment.filters["tojson"] = _tojson
    environment.globals |= {
        "raise_exception": _raise_exception,
        "strftime_now": _strftime_now,
        "namespace": _namespace,
    }
    return environment


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """JSON as it is: jinja2's own filter writes signs of HTML in another way."""
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )


def _raise_exception(message: str) -> None:
    raise TemplateError(message)


def _strftime_now(form: str) -> str:
    return datetime.now().strftime(form)


class _Namespace(Namespace):
    """jinja2's variables that outlive a loop, without names that reach into Python."""

    def __setitem__(self, name: str, value: Any) -> None:
        if name.startswith("_"):
            raise SecurityError(f"a name in a namespace must not begin with an underscore, got {name!r:.80}")
        super().__setitem__(name, value)


def _namespace(*arguments: Any, **values: Any) -> _Namespace:
    space = _Namespace()
    for name, value in dict(*arguments, **values).items():
        space[name] = value
    return space


class _Generation(Extension):
    """`{% generation %}`, with which some templates mark what the assistant says: the text stays as it is."""

    tags = {"generation"}  # noqa: RUF012 - a class of jinja2's with jinja2's own way

    def parse(self, parser: Parser) -> Node:
        line = next(parser.stream).lineno
        return Scope(list(parser.parse_statements(("name:endgeneration",), drop_needle=True)), lineno=line)
