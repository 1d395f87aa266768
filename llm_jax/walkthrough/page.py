"""The walkthrough as a page: stages and what lies beyond them, filled into the template."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from latex2mathml.converter import convert
from markupsafe import Markup

from llm_jax.base.tree import count_parameters
from llm_jax.display.figures import to_svg
from llm_jax.display.page import render
from llm_jax.walkthrough.lesson import Lesson
from llm_jax.walkthrough.pictures import picture
from llm_jax.walkthrough.stages import Stage, View
from llm_jax.walkthrough.xray import XRay

_TEMPLATES = Path(__file__).parent / "templates"

BEYOND = ("block", "layers", "losses", "step")


class ShownView(NamedTuple):
    """A view's corner as text."""

    symbol: str
    shape: list[tuple[str, int]]  # name and size of each axis
    header: list[str]
    rows: list[list[str]]
    more: str  # what of the array is shown, where not all is


class ShownStage(NamedTuple):
    """A stage as the template wants it."""

    name: str
    words: Mapping[str, str]  # title, why, torch
    formula: Markup
    stage: Stage
    views: list[ShownView]
    picture: Markup | None


def show_view(view: View, words: Mapping[str, Any], count: int = 8) -> ShownView:
    """Return the first `count` rows and columns of a view as text, with named axes."""
    corner, rows, columns = view.corner(count)
    cells = [[_number(value) for value in row] for row in corner]
    if rows:
        cells = [[label, *row] for label, row in zip(rows, cells, strict=True)]
    header = [str(number) for number in range(corner.shape[1])] if columns is None else list(columns)
    whole = view.array.size == corner.size
    note = words["page"]["first_of"].format(shown=f"{corner.size:,}", total=f"{view.array.size:,}")
    shape = [(words["axis"][axis], size) for axis, size in zip(view.axes, view.array.shape, strict=True)]
    return ShownView(view.symbol, shape, [""] * bool(rows) + header, cells, "" if whole else note)


def show_stage(stage: Stage, lesson: Lesson, words: Mapping[str, Any]) -> ShownStage:
    """Return a stage with its sentences, formula, tables and picture."""
    return ShownStage(
        stage.name,
        words["stage"][stage.name],
        Markup(convert(stage.formula, display="block")),
        stage,
        [show_view(view, words) for view in stage.views],
        _svg(stage.name, lesson, words),
    )


def next_tokens(lesson: Lesson, count: int = 10) -> list[tuple[int, float]]:
    """Return the likeliest ids after the first sequence, and their probabilities."""
    scores_V = lesson.logits[0, -1].astype(np.float64)
    weights_V = np.exp(scores_V - scores_V.max())
    best = np.argsort(-scores_V, kind="stable")[:count]
    return [(int(token), float(weights_V[token] / weights_V.sum())) for token in best]


def explain_page(
    lesson: Lesson,
    all_stages: list[Stage],
    *,
    label: Callable[[int], str],
    words: Mapping[str, Any],
    language: str,
    about: str,
    xray: XRay | None,
) -> str:
    """Return the whole page's HTML.

    Args:
        lesson: the batch seen through.
        all_stages: as `stages` gives them.
        label: the text of a token id.
        words: the sentences of a language.
        language: its code, for the page's attribute.
        about: one sentence on the model that is shown.
        xray: of a text, for the last part; None leaves it out.
    """
    config = lesson.config
    cards = [
        (words["page"]["parameters"], count_parameters(lesson.params)),
        (words["page"]["layers"], config.num_layers),
        (words["page"]["heads"], config.num_heads),
        (words["page"]["context"], config.context_length),
        (words["page"]["vocabulary"], config.vocab_size),
    ]
    answer = int(lesson.batch.targets[0, -1])
    return render(
        _TEMPLATES / "explain.html.j2",
        title=words["page"]["title"],
        language=language,
        words=words,
        about=about,
        cards=[(name, f"{number:,}") for name, number in cards],
        stages=[show_stage(stage, lesson, words) for stage in all_stages],
        next_tokens=[(label(token), share, token == answer) for token, share in next_tokens(lesson)],
        uniform=float(np.log(config.vocab_size)),
        beyond=[(name, _svg(name, lesson, words)) for name in BEYOND],
        losses=[
            [(lesson.labels[int(token)], float(nats)) for token, nats in zip(row, row_nats, strict=True)]
            for row, row_nats in zip(lesson.batch.targets, lesson.nats, strict=True)
        ],
        xray=xray,
        movements=[move for move in lesson.movements if move.layer in (None, 0)],
    )


def _svg(name: str, lesson: Lesson, words: Mapping[str, Any]) -> Markup | None:
    figure = picture(name, lesson, words["figure"])
    return figure and to_svg(figure, words["figure"].get(name) or words["beyond"][name]["title"])


def _number(value: Any) -> str:
    if np.issubdtype(np.asarray(value).dtype, np.integer):
        return f"{value:,}"
    return {np.inf: "∞", -np.inf: "−∞"}.get(float(value), f"{value:.4f}")
