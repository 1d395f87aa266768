"""Small HTML for notebooks: what a value shows of itself where the last line of a cell is one."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any


def html_table(caption: str, rows: Sequence[Mapping[str, Any]]) -> str:
    """Return rows as a table: a column for each name that a row has, in the order in which they come."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    head = "".join(f"<th>{escape(name)}</th>" for name in names)
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(_shown(row.get(name)))}</td>" for name in names) + "</tr>"
        for row in rows
    )
    return f"<table><caption>{escape(caption)}</caption><tr>{head}</tr>{body}</table>"


def _shown(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
