"""Pictures for the pages: matplotlib figures as SVG that takes on the page's text colour, or as PNG.

Figures are made without pyplot, so nothing here has a state.
"""

import io
import warnings
from collections.abc import Sequence
from pathlib import Path

import matplotlib
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

from llm_jax.base.errors import UserError

# Readable on white and on black alike: at least 3 : 1 on both (WCAG 2.2, non-text contrast).
COLOURS = ("#2f81d8", "#d9622b", "#2e9e5b", "#b05cc6", "#a98307", "#d6456b", "#1f9aa5", "#7f7f7f")
_INK = "#123456"  # Stands for the page's text colour until `to_svg` puts that in its place.


def new_figure(width: float = 7.2, height: float = 3.2) -> Figure:
    """Return an empty figure, in inches."""
    return Figure(figsize=(width, height), layout="constrained")


def plain_axes(figure: Figure, *position: int, x: str = "", y: str = "") -> Axes:
    """Return axes with a quiet grid and no frame; `position` as in `Figure.add_subplot`, labels x and y."""
    axes = figure.add_subplot(*position)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(visible=True, color=_INK, alpha=0.15, linewidth=0.6)
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    _ink(axes)
    return axes


def bare_axes(figure: Figure, *position: int, title: str = "") -> Axes:
    """Return axes for a heat map: no ticks, no frame, a title."""
    axes = figure.add_subplot(*position)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)
    axes.set_title(title, fontsize=9)
    _ink(axes)
    return axes


def to_svg(figure: Figure, label: str) -> Markup:
    """Return the figure as an <svg> element that scales with its column; `label` says what it shows to those
    who do not see it.
    """
    text = io.StringIO()
    # Text stays text, in the page's font, so glyphs that matplotlib's font lacks do not matter; a fixed salt
    # makes the same figure the same bytes.
    with (
        matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "llm_jax"}),
        warnings.catch_warnings(action="ignore", category=UserWarning),
    ):
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(text, format="svg", transparent=True, metadata=nothing)
    svg = text.getvalue()
    svg = svg[svg.index("<svg") :].replace(_INK, "currentColor")
    attributes = Markup('<svg role="img" aria-label="{}" ').format(label)
    return attributes + Markup(svg.removeprefix("<svg "))


def write_png(figure: Figure, path: Path) -> None:
    """Write the figure on white, as a PNG file. UserError when it cannot be written."""
    try:
        figure.savefig(path, dpi=160, facecolor="white")
    except OSError as error:
        raise UserError(f"the picture {path} cannot be written: {error}") from None


def _ink(axes: Axes) -> None:
    axes.tick_params(which="both", colors=_INK, labelsize=8)
    axes.spines[:].set_color(_INK)
    for text in (axes.xaxis.label, axes.yaxis.label, axes.title):
        text.set_color(_INK)
        text.set_fontsize(9)


def add_legend(axes: Axes) -> None:
    """Put the names of labelled lines above the axes, each in its line's colour."""
    axes.legend(
        loc="lower left",
        bbox_to_anchor=(0, 1),
        ncols=2,
        frameon=False,
        fontsize=8,
        labelcolor="linecolor",
        borderaxespad=0.2,
        handlelength=1.2,
    )


def label_heights(axes: Axes, labels: Sequence[tuple[float, str, str | None]]) -> None:
    """Write texts to the right of the axes at heights in its data, moved apart where they would touch.

    Args:
        axes: with its limits set.
        labels: (height, text, colour); None is the text's own colour.
    """
    shares = axes.transAxes.inverted().transform(
        axes.transData.transform([(axes.get_xlim()[0], height) for height, _, _ in labels])
    )[:, 1]
    gap = 12 * axes.figure.dpi / 72 / axes.bbox.height  # a line of text (12 points), as a share of the axes
    order = sorted(range(len(labels)), key=lambda at: shares[at])
    places = [max(0.0, min(1.0, float(shares[at]))) for at in order]
    for at in range(1, len(places)):
        places[at] = max(places[at], places[at - 1] + gap)
    overshoot = max(0.0, places[-1] - 1) if places else 0.0
    for at in range(len(places) - 1, -1, -1):
        limit = places[at + 1] - gap if at + 1 < len(places) else places[at] - overshoot
        places[at] = min(places[at], limit)
    for at, place in zip(order, places, strict=True):
        height, text, colour = labels[at]
        axes.annotate(
            text,
            xy=(1, height),
            xycoords=("axes fraction", "data"),
            xytext=(1.05, place),
            textcoords="axes fraction",
            va="center",
            fontsize=8,
            color=colour or _INK,
            arrowprops={"arrowstyle": "-", "color": colour or _INK, "linewidth": 0.6, "alpha": 0.6},
        )


def draw_level(axes: Axes, height: float) -> None:
    """Draw a dashed line across the axes, in the text's colour."""
    axes.axhline(height, color=_INK, linewidth=0.9, linestyle=(0, (4, 3)), alpha=0.7)


def add_colour_bar(figure: Figure, image: AxesImage, axes: Axes, label: str) -> None:
    """Add the scale of a heat map, below it."""
    bar = figure.colorbar(image, ax=axes, location="bottom", aspect=40, pad=0.04)
    bar.set_label(label)
    bar.outline.set_visible(False)
    _ink(bar.ax)
