"""Several runs on one page: curves in one picture, settings side by side, what their difference is worth."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from llm_jax.display.page import render
from llm_jax.display.words import Language, read_words
from llm_jax.reports import curves
from llm_jax.reports.curves import Picture, Words, curve, differences_picture
from llm_jax.reports.run_page import best_score, draw, duration, wall_seconds

_TEMPLATES = Path(__file__).parent / "templates"
_SETTING_COLUMNS = 8  # of the table of runs; those beyond stand in the table of settings alone


class Side(NamedTuple):
    """One of the runs."""

    name: str
    parameters: int
    entries: Sequence[Mapping[str, Any]]  # the lines of its metrics.jsonl
    sample: str  # the last one; may be empty
    steps: int  # that its configuration asks for


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


class Cell(NamedTuple):
    """A cell of the table of runs: what it shows, and what it is sorted by."""

    text: str
    value: float | str  # "" for none


def comparison_pictures(
    sides: Sequence[Side], pairs: Sequence[Pair | Refused], language: Language = "en"
) -> list[Picture]:
    """Return all pictures of the page that there are numbers for."""
    runs, words = {side.name: side.entries for side in sides}, read_words("reports", language)
    measures = (
        curves.VALIDATION_BITS,
        curves.TRAIN_LOSS,
        curves.LEARNING_RATE,
        curves.GRADIENT,
        curves.UPDATE,
        curves.SPEED,
    )
    measured = {pair.name: (pair.difference, pair.standard_error) for pair in pairs if isinstance(pair, Pair)}
    made = [
        differences_picture(measured, sides[0].name, words),
        *(curve(measure, runs, words) for measure in measures),
    ]
    return [picture for picture in made if picture is not None]


def comparison_page(
    sides: Sequence[Side],
    pairs: Sequence[Pair | Refused],
    settings: Sequence[tuple[str, Sequence[str]]],
    pictures: Sequence[Picture],
    language: Language = "en",
    left_out: Sequence[str] = (),
) -> str:
    """Return the page as HTML.

    Args:
        sides: the runs; the first is what the others are compared with.
        pairs: one for each other run.
        settings: (name, a value for each run) of every setting in which the runs differ.
        pictures: those of `comparison_pictures`.
        language: of the sentences.
        left_out: what was given and is no run, and why.
    """
    words = read_words("reports", language)
    drawn = [draw(picture) | {"name": picture.name} for picture in pictures]
    columns = ("run", "steps", "best_loss", "best_step", "bits", "parameters", "wall")
    return render(
        _TEMPLATES / "comparison.html.j2",
        language=language,
        words=words,
        title=words["page"]["comparison"],
        left_out=left_out,
        sides=sides,
        columns=[words["column"][name] for name in columns]
        + [name for name, _ in settings[:_SETTING_COLUMNS]],
        rows=[
            _row(side, [values[at] for _, values in settings[:_SETTING_COLUMNS]], words)
            for at, side in enumerate(sides)
        ],
        pairs=[pair for pair in pairs if isinstance(pair, Pair)],
        refused=[pair for pair in pairs if isinstance(pair, Refused)],
        verdicts=[verdict(pair, sides[0].name, words) for pair in pairs if isinstance(pair, Pair)],
        settings=settings,
        difference=next((item for item in drawn if item["name"] == "difference"), None),
        curves=[item for item in drawn if item["name"] != "difference"],
    )


def _row(side: Side, settings: Sequence[str], words: Words) -> list[Cell]:
    """A run's line in the table of runs, in the order of its columns."""
    best = best_score(side.entries)
    done = max((entry["step"] for entry in side.entries), default=0)
    shown = f"{done:,}"
    if done != side.steps:
        shown = words["comparison"]["steps_of"].format(done=shown, steps=f"{side.steps:,}")
    seconds = wall_seconds(side.entries)
    return [
        Cell(side.name, side.name),
        Cell(shown, done),
        _number(best.get("validation_loss"), "{:.4f}"),
        _number(best.get("step"), "{:,}"),
        _number(best.get("validation_bits_per_byte"), "{:.4f}"),
        _number(side.parameters, "{:,}"),
        Cell("", "") if seconds is None else Cell(duration(seconds, words), seconds),
        *(Cell(value, value) for value in settings),
    ]


def _number(value: float | None, form: str) -> Cell:
    return Cell("", "") if value is None else Cell(form.format(value), value)


def verdict(pair: Pair, against: str, words: Words) -> str:
    """Return the outcome of a pair in a sentence."""
    said = words["comparison"]
    size = said["size"].format(difference=f"{abs(pair.difference):.4f}", error=f"{pair.standard_error:.4f}")
    if pair.better is None:
        return said["same"].format(name=pair.name, against=against)
    worse = against if pair.better == pair.name else pair.name
    return said["better" if pair.exceeds_noise else "ahead"].format(
        better=pair.better, worse=worse, size=size
    )
