"""Several runs on one page: curves in one picture, settings side by side, what their difference is worth."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from llm_jax.display.page import render
from llm_jax.reports import curves
from llm_jax.reports.curves import Picture, curve, differences_picture
from llm_jax.reports.run_page import draw, last_score

_TEMPLATES = Path(__file__).parent / "templates"


class Side(NamedTuple):
    """One of the runs."""

    name: str
    parameters: int
    entries: Sequence[Mapping[str, Any]]  # the lines of its metrics.jsonl
    sample: str  # the last one; may be empty


class Pair(NamedTuple):
    """A run against the first one, in bits per byte over the bytes that both held out."""

    name: str
    first: float
    second: float
    difference: float  # this run minus the first
    standard_error: float
    bytes: int
    blocks: int
    better: str | None  # the name of the run with the lower loss; None where they are equal
    exceeds_noise: bool


class Refused(NamedTuple):
    """A run that cannot be set against the first one."""

    name: str
    reason: str


def comparison_pictures(sides: Sequence[Side], pairs: Sequence[Pair | Refused]) -> list[Picture]:
    """All pictures of the page that there are numbers for."""
    runs = {side.name: side.entries for side in sides}
    measures = (
        curves.VALIDATION_BITS,
        curves.TRAIN_LOSS,
        curves.LEARNING_RATE,
        curves.GRADIENT,
        curves.UPDATE,
        curves.SPEED,
    )
    measured = {pair.name: (pair.difference, pair.standard_error) for pair in pairs if isinstance(pair, Pair)}
    made = [differences_picture(measured, sides[0].name), *(curve(measure, runs) for measure in measures)]
    return [picture for picture in made if picture is not None]


def comparison_page(
    sides: Sequence[Side],
    pairs: Sequence[Pair | Refused],
    settings: Sequence[tuple[str, Sequence[str]]],
    pictures: Sequence[Picture],
) -> str:
    """The page as HTML.

    Args:
        sides: the runs; the first is what the others are compared with.
        pairs: one for each other run.
        settings: (name, a value for each run) of every setting in which the runs differ.
        pictures: those of `comparison_pictures`.
    """
    drawn = [draw(picture) | {"name": picture.name} for picture in pictures]
    return render(
        _TEMPLATES / "comparison.html.j2",
        language="en",
        title="Comparison of runs",
        sides=sides,
        scores=[last_score(side.entries) for side in sides],
        pairs=[pair for pair in pairs if isinstance(pair, Pair)],
        refused=[pair for pair in pairs if isinstance(pair, Refused)],
        verdicts=[verdict(pair, sides[0].name) for pair in pairs if isinstance(pair, Pair)],
        settings=settings,
        difference=next((item for item in drawn if item["name"] == "difference"), None),
        curves=[item for item in drawn if item["name"] != "difference"],
    )


def verdict(pair: Pair, against: str) -> str:
    """The outcome of a pair in a sentence."""
    size = f"{abs(pair.difference):.4f} ± {pair.standard_error:.4f} bits per byte"
    if pair.better is None:
        return f"{pair.name} and {against} have the same loss."
    worse = against if pair.better == pair.name else pair.name
    if pair.exceeds_noise:
        return f"{pair.better} is better than {worse} by {size}: more than two standard errors."
    return f"{pair.better} is ahead of {worse} by {size}, which is within the noise: no winner."
