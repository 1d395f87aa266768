"""A run's curves: loss beside its baselines, rates, norms, speed over steps; and several runs in one picture.

An entry is a line of metrics.jsonl: a dict with "step" and other numbers. A picture without data is None.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator, PercentFormatter, StrMethodFormatter

from llm_jax.display.figures import (
    COLOURS,
    add_colour_bar,
    add_legend,
    bare_axes,
    draw_level,
    label_heights,
    new_figure,
    plain_axes,
)
from llm_jax.reports.chart import Chart, Entries, Line, points

Words = Mapping[str, Any]  # the report's sentences in a language
_SMALL = (4.5, 2.5)  # inches: two beside each other on a laptop, one on a phone, readable on both
_WIDE = (5.2, 3.0)
_MOST_COLUMNS = 160  # of a heat map; more lines than this are averaged


class Picture(NamedTuple):
    """A figure and what is said about it."""

    name: str  # of its file
    title: str
    caption: str
    figure: Figure
    chart: Chart | None = None  # the same for the page's script; None where only the picture is shown


class Measure(NamedTuple):
    """A number of the entries that makes a curve over steps; its words are those of `picture.KEY`."""

    key: str
    scale: str = "linear"  # or "log", or "share" (a share of one, from zero), or "zero" (linear from zero)


LEARNING_RATE = Measure("learning_rate", "zero")
GRADIENT = Measure("grad_norm", "log")
UPDATE = Measure("update_norm", "log")
SPEED = Measure("tokens_per_second", "zero")
MFU = Measure("mfu", "share")
TRAIN_LOSS = Measure("train_loss")
VALIDATION_BITS = Measure("validation_bits_per_byte")


def named(label: str, words: Words) -> str:
    """Return what a language calls something that the program has an English name for."""
    return words["label"].get(label, label)


def having(entries: Entries, key: str) -> list[Mapping[str, Any]]:
    """Return the entries that have a finite number under this key."""
    return [entry for entry in entries if entry.get(key) is not None]


def series(entries: Entries, key: str) -> tuple[np.ndarray, np.ndarray]:
    """Return steps and values [N] of the entries that have a finite number under this key."""
    pairs = [(entry["step"], entry[key]) for entry in having(entries, key)]
    return np.array([step for step, _ in pairs]), np.array([value for _, value in pairs], float)


def smooth(values: np.ndarray, window: int) -> np.ndarray:
    """Return mean of each value and the ones before it, `window` of them or as many as there are."""
    total = np.concatenate([[0.0], np.cumsum(values)])
    last = np.arange(1, len(values) + 1)
    first = np.maximum(last - window, 0)
    return (total[last] - total[first]) / (last - first)


def loss_picture(entries: Entries, baselines: Mapping[str, float], words: Words) -> Picture | None:
    """Return training and validation loss over steps, with the baselines that are near enough as level lines;
    the caption has the others.
    """
    said = words["curve"]
    trained, evaluated = having(entries, "train_loss"), having(entries, "validation_loss")
    train_steps, train = series(entries, "train_loss")
    steps, validation = series(entries, "validation_loss")
    if not len(train) and not len(validation):
        return None
    figure = new_figure(*_WIDE)
    axes = plain_axes(figure, 1, 1, 1, x=said["step"], y=said["nats"])
    window = max(1, len(train) // 25)
    smoothed = smooth(train, window)
    low, high = _loss_limits(smoothed, validation)
    baselines = {named(name, words): nats for name, nats in baselines.items()}
    near = {name: nats for name, nats in baselines.items() if low <= nats <= high}
    labels: list[tuple[float, str, str | None]] = []
    lines: list[Line] = []
    for name, nats in near.items():
        draw_level(axes, nats)
        labels.append((nats, f"{name} {nats:.3f}", None))
    if len(train):
        axes.plot(train_steps, train, color=COLOURS[0], linewidth=0.7, alpha=0.4)
        axes.plot(train_steps, smoothed, color=COLOURS[0], linewidth=1.5)
        labels.append((smoothed[-1], f"{said['training']} {smoothed[-1]:.3f}", COLOURS[0]))
        lines.append(Line(said["training"], COLOURS[0], points(trained, train.tolist()), "faint"))
        lines.append(Line("", COLOURS[0], points(trained, smoothed.tolist()), "bold"))
    if len(validation):
        error = 2 * np.array([entry.get("validation_standard_error") or 0 for entry in evaluated])
        axes.fill_between(steps, validation - error, validation + error, color=COLOURS[1], alpha=0.18, lw=0)
        axes.plot(steps, validation, color=COLOURS[1], linewidth=1.8, marker="o", markersize=3)
        labels.append((validation[-1], f"{said['validation']} {validation[-1]:.3f}", COLOURS[1]))
        rows = points(evaluated, validation.tolist(), error.tolist())
        lines.append(Line(said["validation"], COLOURS[1], rows, "bold dots"))
    axes.set_ylim(low, high)
    _step_axis(axes)
    label_heights(axes, labels)
    caption = _loss_caption(window, len(validation) > 0, baselines, near, words)
    chart = Chart(lines, said["nats"], limits=(float(low), float(high)), levels=list(near.items()))
    return Picture("loss", words["picture"]["loss"]["title"], caption, figure, chart)


def _loss_limits(train: np.ndarray, validation: np.ndarray) -> tuple[float, float]:
    """Limits that show where the curves spend their time: the steep beginning may leave at the top."""
    low = min([*train, *validation])
    high = max([float(np.quantile(train, 0.9)) if len(train) else low, *validation])
    margin = max(0.12 * (high - low), 0.02)
    return low - margin, high + margin


def _loss_caption(
    window: int,
    evaluated: bool,
    baselines: Mapping[str, float],
    near: Mapping[str, float],
    words: Words,
) -> str:
    said, join = words["curve"], words["join"]
    parts = [said["dashed"]] if near else []
    if window > 1:
        parts.append(said["training_text"].format(window=window))
    if evaluated:
        parts.append(said["validation_text"])
    if outside := {name: nats for name, nats in baselines.items() if name not in near}:
        parts.append(
            said["outside"].format(
                names=join["list"].join(f"{name} {nats:.3f}" for name, nats in outside.items())
            )
        )
    return join["sentences"].join(parts)


def curve(measure: Measure, runs: Mapping[str, Entries], words: Words) -> Picture | None:
    """Return one number over steps, a line for each run; names of runs where there are several."""
    said = words["picture"][measure.key]
    legend_rows = -(-len(runs) // 2)
    figure, lines = new_figure(_SMALL[0], _SMALL[1] + 0.17 * legend_rows), []
    axes = plain_axes(figure, 1, 1, 1, x=words["curve"]["step"], y=said["axis"])
    for number, (name, entries) in enumerate(runs.items()):
        kept = having(entries, measure.key)
        if measure in (SPEED, MFU):  # Zero stands for "not yet measured" there.
            kept = [entry for entry in kept if entry[measure.key] > 0]
        steps, values = series(kept, measure.key)
        marker = "o" if measure is VALIDATION_BITS else None
        colour = COLOURS[number % len(COLOURS)]
        if len(runs) > 1 and measure is TRAIN_LOSS:
            values = smooth(values, max(1, len(values) // 25))
        style, dash = (("-", ""), ("--", "5 3"), (":", "1.5 2.5"), ("-.", "6 2 1.5 2"))[
            number // len(COLOURS) % 4
        ]
        axes.plot(steps, values, style, color=colour, lw=1.4, marker=marker, ms=3, label=_elide(name))
        if len(values):
            title = name if len(runs) > 1 else said["title"]
            rows = points(kept, values.tolist())
            lines.append(Line(title, colour, rows, "dots" if marker else "", dash))
    if not lines:
        return None
    if measure.scale == "log":
        _log_axis(axes)
    elif measure.scale in ("zero", "share"):
        axes.set_ylim(0)
    if measure.scale == "share":
        axes.yaxis.set_major_formatter(PercentFormatter(1))
    if len(runs) > 1:
        add_legend(axes)
    _step_axis(axes)
    chart = Chart(lines, said["axis"], measure.scale)
    return Picture(measure.key, said["title"], said["caption"], figure, chart)


def norms_by_layer(entries: Entries, key: str, words: Words) -> Picture | None:
    """Return norms of each part of the parameters over steps, as a heat map on a log scale.

    Args:
        entries: whose `key` holds a number for each part, and a list of one for each layer under "blocks".
        key: "grad_norms" or "update_norms".
        words: the sentences of a language.
    """
    lines = [entry for entry in entries if isinstance(entry.get(key), Mapping)]
    if not lines:
        return None
    rows = _rows(lines, key, words)
    sheet = np.array([[np.nan if value is None else value for value in row] for row in rows.values()], float)
    sheet[~(sheet > 0)] = np.nan
    if np.isnan(sheet).all():
        return None
    columns = min(sheet.shape[1], _MOST_COLUMNS)
    groups = np.array_split(np.arange(sheet.shape[1]), columns)
    sheet = np.stack([sheet[:, group].mean(axis=1) for group in groups], axis=1)
    figure = new_figure(_SMALL[0], min(6.5, 1.3 + 0.17 * len(rows)))
    axes = bare_axes(figure, 1, 1, 1)
    low, high = float(np.nanmin(sheet)), float(np.nanmax(sheet))
    image = axes.imshow(
        sheet,
        aspect="auto",
        interpolation="none",
        cmap="viridis",
        norm=LogNorm(low, max(high, low * 1.01)),
        extent=(lines[0]["step"], max(lines[-1]["step"], lines[0]["step"] + 1), len(rows), 0),
    )
    every = -(-len(rows) // 30)
    axes.set_yticks(np.arange(len(rows))[::every] + 0.5, list(rows)[::every])
    axes.tick_params(length=0, labelsize=7)
    axes.set_xlabel(words["curve"]["step"])
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    add_colour_bar(figure, image, axes, words["curve"]["norm"])
    return Picture(key, words["picture"][key]["title"], "", figure)


def _rows(lines: Entries, key: str, words: Words) -> dict[str, list[float | None]]:
    """Values over the lines by part, in the order of the forward pass; None where a line has none."""
    order = ["token_embedding", "position_embedding", "blocks", "final_norm", "head"]
    parts: list[dict[tuple[str, int], float | None]] = []
    for line in lines:
        listed = {name: part if isinstance(part, list) else [part] for name, part in line[key].items()}
        parts.append({(name, at): value for name, part in listed.items() for at, value in enumerate(part)})
    names = sorted(
        dict.fromkeys(name for part in parts for name in part),
        key=lambda name: order.index(name[0]) if name[0] in order else len(order),
    )
    return {
        words["curve"]["block"].format(number=at + 1)
        if name == "blocks"
        else _elide(name.replace("_", " ")): [part.get((name, at)) for part in parts]
        for name, at in names
    }


def differences_picture(
    pairs: Mapping[str, tuple[float, float]], against: str, words: Words
) -> Picture | None:
    """Return difference of each run from the first, with two standard errors to both sides.

    Args:
        pairs: (difference, standard error) in bits per byte, by the name of the run.
        against: the first run's name.
        words: the sentences of a language.
    """
    if not pairs:
        return None
    figure = new_figure(_SMALL[0], 1.0 + 0.35 * len(pairs))
    axes = plain_axes(figure, 1, 1, 1, x=words["curve"]["against"].format(name=_elide(against)))
    for row, (difference, error) in enumerate(pairs.values()):
        colour = COLOURS[(row + 1) % len(COLOURS)]
        axes.errorbar(
            difference, row, xerr=2 * error, fmt="o", color=colour, capsize=4, linewidth=1.6, markersize=5
        )
    axes.axvline(0, color=COLOURS[0], linewidth=1.6)
    axes.set_yticks(range(len(pairs)), [_elide(name) for name in pairs])
    axes.set_ylim(len(pairs) - 0.5, -0.5)
    said = words["picture"]["difference"]
    return Picture("difference", said["title"], said["caption"], figure)


def _elide(name: str, most: int = 26) -> str:
    """The name's end, as much as has room in a picture; its dollars begin no formula."""
    return (name if len(name) <= most else "..." + name[-most:]).replace("$", r"\$")


def _log_axis(axes: Axes) -> None:
    """A logarithmic axis with plain numbers; a range of less than a decade stays linear, where ticks are
    plenty.
    """
    low, high = axes.dataLim.intervaly
    if low <= 0 or high < 10 * low:
        return
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 1000 * low else (1,)))
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.yaxis.set_minor_locator(NullLocator())


def _step_axis(axes: Axes) -> None:
    axes.set_xlim(0, max(axes.get_xlim()[1], 1))
    axes.margins(x=0)
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
