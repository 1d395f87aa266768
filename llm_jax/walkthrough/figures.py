"""Pictures for the pages: matplotlib figures as SVG that takes on the page's text colour, or as PNG.

Figures are made without pyplot, so nothing here has a state.
"""

import io
import warnings
from pathlib import Path

import matplotlib
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from llm_jax.errors import UserError

# Readable on white and on black alike: at least 3 : 1 on both (WCAG 2.2, non-text contrast).
COLOURS = ("#2f81d8", "#d9622b", "#2e9e5b", "#b05cc6", "#a98307", "#d6456b", "#1f9aa5", "#7f7f7f")
_INK = "#123456"  # Stands for the page's text colour until `to_svg` puts that in its place.


def new_figure(width: float = 7.2, height: float = 3.2) -> Figure:
    """An empty figure, in inches."""
    return Figure(figsize=(width, height), layout="constrained")


def plain_axes(figure: Figure, *position: int, x: str = "", y: str = "") -> Axes:
    """Axes with a quiet grid and no frame; `position` as in `Figure.add_subplot`, labels x and y."""
    axes = figure.add_subplot(*position)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(visible=True, color=_INK, alpha=0.15, linewidth=0.6)
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    _ink(axes)
    return axes


def bare_axes(figure: Figure, *position: int, title: str = "") -> Axes:
    """Axes for a heat map: no ticks, no frame, a title."""
    axes = figure.add_subplot(*position)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)
    axes.set_title(title, fontsize=9)
    _ink(axes)
    return axes


def to_svg(figure: Figure, label: str) -> Markup:
    """The figure as an <svg> element that scales with its column; `label` says what it shows to those who do
    not see it.
    """
    text = io.StringIO()
    # Text stays text, in the page's font, so glyphs that matplotlib's font lacks do not matter; a fixed salt
    # makes the same figure the same bytes.
    with (
        matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "llm_jax"}),
        warnings.catch_warnings(action="ignore", category=UserWarning),
    ):
        figure.savefig(text, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    svg = text.getvalue()
    svg = svg[svg.index("<svg") :].replace(_INK, "currentColor")
    attributes = Markup('<svg role="img" aria-label="{}" ').format(label)
    return attributes + Markup(svg.removeprefix("<svg "))


def write_png(figure: Figure, path: Path) -> None:
    """The figure on white, as a PNG file. UserError when it cannot be written."""
    try:
        figure.savefig(path, dpi=160, facecolor="white")
    except OSError as error:
        raise UserError(f"the picture {path} cannot be written: {error}") from None


def _ink(axes: Axes) -> None:
    axes.tick_params(colors=_INK, labelsize=8)
    axes.spines[:].set_color(_INK)
    for text in (axes.xaxis.label, axes.yaxis.label, axes.title):
        text.set_color(_INK)
        text.set_fontsize(9)
