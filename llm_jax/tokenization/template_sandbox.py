"""A chat template as the program of somebody else's that it is: in jinja2's sandbox, in a process of its own.

It sees strings, lists and dicts alone, and changes none of them. What it may call is what transformers
offers, so that both render the same text. Of each character of that text it is known who wrote it
(`traced_text`).
`chat_template` starts the process, which gives each conversation a second of processor time and 512 MB.
"""

import json
import resource
import signal
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from functools import lru_cache
from typing import Any

from jinja2 import Template, TemplateError, pass_eval_context
from jinja2.compiler import CodeGenerator, Frame
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension, loopcontrols
from jinja2.filters import do_join
from jinja2.nodes import Concat, Const, EvalContext, Node, Scope
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace

from llm_jax.tokenization.traced_text import ANSWER, TEMPLATE, Traced, concat, origins, traced

_ROLES = ("system", "user", "assistant")
_MOST_MEMORY = 512 << 20  # bytes; Python and jinja2 take 40 MB of them
_MOST_TEXT = 1 << 24  # characters
_LOOK_SECONDS = 0.02  # of processor time between two looks at the memory


def serve() -> None:
    """Answer each line of standard input, a question in JSON, with a line of JSON, until they end."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C in the terminal is not meant for this process.
    _limit_memory()
    for line in sys.stdin.buffer:
        asked = json.loads(line)
        # What has not ended when its time is over ends with the process, whatever it is at.
        signal.setitimer(signal.ITIMER_PROF, asked.pop("seconds"))
        try:
            answer: dict[str, Any] = _answer(**asked)
        except MemoryError:
            answer = {"refused": f"it needs more than {_MOST_MEMORY >> 20} MB of memory"}
        signal.setitimer(signal.ITIMER_PROF, 0)
        sys.stdout.buffer.write(json.dumps(answer).encode() + b"\n")
        sys.stdout.buffer.flush()


def _limit_memory() -> None:
    """The system's limit; and where it has none (macOS), a look now and then at what was taken."""
    for kind, most in ((resource.RLIMIT_AS, _MOST_MEMORY), (resource.RLIMIT_CORE, 0)):
        with suppress(OSError, ValueError):
            _, hard = resource.getrlimit(kind)
            resource.setrlimit(kind, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))
    unit = 1 if sys.platform == "darwin" else 1024
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    def look(*_: object) -> None:
        taken = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        if taken * unit > _MOST_MEMORY:
            raise MemoryError

    signal.signal(signal.SIGVTALRM, look)
    signal.setitimer(signal.ITIMER_VIRTUAL, _LOOK_SECONDS, _LOOK_SECONDS)


def _answer(
    template: str,
    messages: Sequence[Mapping[str, str]],
    add_generation_prompt: bool,
    tokens: Mapping[str, str],
) -> dict[str, Any]:
    """{"text", "origins" (a digit for each character)}, or {"refused"} with the reason."""
    try:
        text = _compiled(template).render(
            messages=[_seen(message) for message in messages],
            tools=None,
            documents=None,
            add_generation_prompt=add_generation_prompt,
            **{name: _own(token) for name, token in tokens.items()},
        )
    except MemoryError:
        raise
    except Exception as error:  # noqa: BLE001 - a template can raise whatever an expression of Python can
        return {"refused": " ".join(str(error).split())[:200] or type(error).__name__}
    if len(text) > _MOST_TEXT:
        return {"refused": f"it gives {len(text):,} characters, and at most {_MOST_TEXT:,} are taken"}
    return {"text": "".join([text]), "origins": "".join(map(str, origins(text)))}


@lru_cache(maxsize=4)
def _compiled(template: str) -> Template:
    return _environment().from_string(template)


def _seen(message: Mapping[str, str]) -> dict[str, str]:
    """A message as a template sees it. Templates make markers of the roles."""
    seen = dict(message)
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
