"""What a model's labels are worth, as tables in the terminal."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Column, Table
from rich.text import Text

from llm_jax.base.terminal import console

_LABELS = 20  # at most, of a table
_ERRORS = 20
_WIDTH = 60  # characters of a text that was told wrongly


def show_scores(found: Mapping[str, Any], title: str) -> None:
    """Print metrics beside baselines, metrics by label, the confusion matrix and the worst errors.

    Args:
        found: as `tasks.label_scores.score_split` gives it.
        title: what stands above.
    """
    shown, spans = console(width=110), "spans" in found
    table = Table("", "accuracy", "macro F1", *(["span F1"] if spans else []), title=title)
    for name, each in {"this model": found, **found["baselines"]}.items():
        row = [each["accuracy"], each["macro_f1"], *([each["spans"]["f1"]] if spans else [])]
        table.add_row(name, *map(estimate, row))
    shown.print(table)
    by_label = sorted(found["by_label"], key=lambda each: -each["support"])[:_LABELS]
    table = Table("label", "texts", "told", "precision", "recall", "F1")
    for each in by_label:
        shares = (f"{each[name]:.2%}" for name in ("precision", "recall", "f1"))
        table.add_row(Text(each["label"]), f"{each['support']:,}", f"{each['predicted']:,}", *shares)
    shown.print(table)
    if 2 <= len(found["labels"]) <= _LABELS:
        shown.print(_confusion(found["labels"], found["confusion"]))
    if found["worst"]:
        table = Table("text", "is", "was told", "given", title="the worst errors")
        for each in found["worst"][:_ERRORS]:
            text = Text.assemble(
                each["before"][-_WIDTH:], (each["text"][:_WIDTH], "bold"), each["after"][:_WIDTH]
            )
            table.add_row(text, Text(each["label"]), Text(each["told"]), f"{each['probability']:.1%}")
        shown.print(table)


def estimate(values: Sequence[float]) -> str:
    """Return a share with its 95 % interval."""
    value, low, high = values
    return f"{value:.2%} ({low:.2%} to {high:.2%})"


def _confusion(labels: Sequence[str], counts: Sequence[Sequence[int]]) -> Table:
    table = Table("is \\ told", *(Column(Text(label)) for label in labels), title="confusion")
    for number, row in enumerate(counts):
        cells = [
            Text(str(count) if count else "·", "bold" if at == number else "") for at, count in enumerate(row)
        ]
        table.add_row(Text(labels[number]), *cells)
    return table
