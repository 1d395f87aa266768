"""The walkthrough in a terminal: the page's story with rich."""

from collections.abc import Iterable, Mapping
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from llm_jax.display.colours import legend, shade
from llm_jax.walkthrough.lesson import Lesson
from llm_jax.walkthrough.page import ShownView, show_view
from llm_jax.walkthrough.stages import Stage
from llm_jax.walkthrough.xray import XRay


def tell(
    console: Console, lesson: Lesson, all_stages: list[Stage], xray: XRay | None, words: Mapping[str, Any]
) -> None:
    """Print every stage (its name, why it is there, our code, its first numbers), then the losses of the
    batch and of the text under the x-ray, token by token.
    """
    for number, stage in enumerate(all_stages, start=1):
        sentences = words["stage"][stage.name]
        console.rule(Text(f"{number}. {sentences['title']}", style="bold"), align="left")
        console.print(Text(sentences["why"]))
        for code in stage.code:
            console.print(Text(code.place, style="dim"))
            console.print(Text(code.text, style="cyan"))
        for view in stage.views:
            shown = show_view(view, words, count=4)
            shape = ", ".join(f"{size:,} {axis}" for axis, size in shown.shape)
            console.print(Text(f"{shown.symbol}  [{shape}]", style="bold green"))
            console.print(_table(shown))
        console.print()
    loss = f"{words['table']['loss']}: {lesson.nats.mean():.4f}"
    console.rule(Text(words["beyond"]["losses"]["title"], style="bold"), align="left")
    console.print(Text.assemble((f"{loss}  ", "bold"), *legend()))
    for row, nats in zip(lesson.batch.targets, lesson.nats, strict=True):
        labels = [lesson.labels[int(token)] for token in row]
        console.print(Text.assemble(*_shaded(zip(labels, map(float, nats), strict=True))))
    if xray is not None:
        console.rule(Text(words["xray"]["surprise_title"], style="bold"), align="left")
        console.print(Text.assemble(*_shaded(xray.surprisals)))
        console.print(Text(words["xray"]["mean"].format(nats=f"{xray.mean_nats:.4f}"), style="bold"))


def _shaded(tokens: Iterable[tuple[str, float | None]]) -> list[tuple[str, str]]:
    return [(text, shade(nats)) for text, nats in tokens]


def _table(shown: ShownView) -> Table:
    table = Table(box=None, padding=(0, 1), header_style="dim")
    for cell in shown.header:
        table.add_column(Text(cell))
    for row in shown.rows:
        table.add_row(*map(Text, row))
    return table
