"""Lines of this program, fetched by what they assign, so that a page that shows them cannot drift."""

import ast
import inspect
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

_ROOT = Path(__file__).parents[2]


class Code(NamedTuple):
    """A statement as it stands in a file."""

    place: str  # "llm_jax/model/layers.py:97"
    text: str


def statement(function: Callable[..., Any], name: str, occurrence: int = 0) -> Code:
    """Return the first statement of a function, or a later one, that assigns the variable `name` or is a
    "return".

    Raises:
        LookupError: the function has no such statement (a page would show nothing: our defect).
    """
    function = inspect.unwrap(function)
    lines, first = inspect.getsourcelines(function)
    source = textwrap.dedent("".join(lines))
    statements = sorted(
        (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.stmt)),
        key=lambda node: node.lineno,
    )
    found = [
        node
        for node in statements
        if (isinstance(node, ast.Return) if name == "return" else name in _assigned(node))
    ]
    if occurrence >= len(found):
        raise LookupError(f"{function.__qualname__} has no statement {occurrence} that assigns {name}")
    start, end = found[occurrence].lineno, found[occurrence].end_lineno
    file = Path(inspect.getfile(function)).resolve().relative_to(_ROOT)
    return Code(
        f"{file.as_posix()}:{first + start - 1}",
        textwrap.dedent("\n".join(source.splitlines()[start - 1 : end])),
    )


def _assigned(node: ast.stmt) -> set[str]:
    if not isinstance(node, ast.Assign):
        return set()
    return {part.id for target in node.targets for part in ast.walk(target) if isinstance(part, ast.Name)}
