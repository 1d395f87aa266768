"""Messages as the text that a model of conversations was trained on, by the model's own jinja2 template.

A template is a program of somebody else's: it runs in jinja2's sandbox, sees strings, lists and dicts alone,
and changes none of them. What it may call is what transformers offers, so that both render the same text. Of
each character of that text it is known who wrote it (`traced_text`).
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from jinja2 import TemplateError, pass_eval_context
from jinja2.compiler import CodeGenerator, Frame
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension, loopcontrols
from jinja2.filters import do_join
from jinja2.nodes import Concat, Const, EvalContext, Node, Scope
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace

from llm_jax.data.traced_text import ANSWER, TEMPLATE, Traced, concat, traced
from llm_jax.errors import DataError

_ROLES = ("system", "user", "assistant")


def render(
    template: str,
    messages: Sequence[Mapping[str, str]],
    *,
    add_generation_prompt: bool,
    tokens: Mapping[str, str],
) -> Traced:
    """The conversation as one text, special tokens written out, with the origin of each character.

    Args:
        template: the model's template, from its tokenizer's configuration or its GGUF file.
        messages: each with `role` and `content`; the template sees them as they are.
        add_generation_prompt: whether the text ends where the assistant begins to speak.
        tokens: what the template knows by their names, such as `bos_token`.

    Raises:
        DataError: the template is damaged, refuses these messages, or does what it may not.
    """
    try:
        text = (
            _environment()
            .from_string(template)
            .render(
                messages=[_seen(message) for message in messages],
                tools=None,
                documents=None,
                add_generation_prompt=add_generation_prompt,
                **{name: _own(token) for name, token in tokens.items()},
            )
        )
    except Exception as error:  # a template can raise whatever an expression of Python can
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise DataError(f"the chat template could not be rendered: {reason}") from error
    assert isinstance(text, Traced)
    return text


def _seen(message: Mapping[str, str]) -> dict[str, str]:
    """A message as a template sees it. Templates make markers of the roles."""
    seen = {str(key): str(value) for key, value in message.items()}
    if seen.get("role") in _ROLES:
        seen["role"] = _own(seen["role"])
    if seen.get("role") == "assistant" and "content" in seen:
        seen["content"] = traced(seen["content"], ANSWER)
    return seen


def _own(text: str) -> Traced:
    return traced(text, TEMPLATE)


class _Code(CodeGenerator):
    """The template as a program whose literals know that they are the template's."""

    def visit_Const(self, node: Const, frame: Frame) -> None:
        self.write(_literal(node.as_const(frame.eval_ctx)))

    def visit_Concat(self, node: Concat, frame: Frame) -> None:
        self.write("environment.concat((")
        for part in node.nodes:
            self.visit(part, frame)
            self.write(", ")
        self.write("))")

    def _output_const_repr(self, group: Iterable[Any]) -> str:
        return _literal("".join(group))


def _literal(value: Any) -> str:
    if isinstance(value, str):
        return f"environment.own({value!r})"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_literal(key)}: {_literal(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        begin, end = "[]" if isinstance(value, list) else "()"
        return begin + "".join(f"{_literal(item)}, " for item in value) + end
    return repr(value)


class _Environment(ImmutableSandboxedEnvironment):
    code_generator_class = _Code
    concat = staticmethod(concat)
    own = staticmethod(_own)


def _environment() -> _Environment:
    environment = _Environment(trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols])
    environment.filters |= {"tojson": _tojson, "join": _join}
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


@pass_eval_context
def _join(context: EvalContext, value: Any, d: str = "", attribute: Any = None) -> str:
    """jinja2's own, which joins with a plain string where none is given."""
    return str(do_join(context, value, d or _own(""), attribute))


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
