"""The picture of the coordinate check: sizes inside a decoder by its width, a line for each step."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from llm_jax.display.figures import COLOURS, add_legend, new_figure, plain_axes

_MOST_LINES = 6


def sizes_picture(widths: Sequence[int], runs: Mapping[str, Mapping[str, np.ndarray]]) -> Figure:
    """Return mean absolute entries against the width, both logarithmic: a row for each run, a column for each
    place.

    Args:
        widths: W of them.
        runs: by name (standard, muP), arrays [W, steps + 1] by place.
    """
    columns = len(next(iter(runs.values())))
    figure = new_figure(2.2 * columns, 2.3 * len(runs) + 0.3)
    for row, (name, sizes) in enumerate(runs.items()):
        for column, (place, size_WS) in enumerate(sizes.items()):
            axes = plain_axes(
                figure,
                *(len(runs), columns, 1 + row * columns + column),
                x="width" if row == len(runs) - 1 else "",
                y=f"{name}, mean size" if column == 0 else "",
            )
            steps = np.unique(np.linspace(0, size_WS.shape[1] - 1, _MOST_LINES).round().astype(int))
            for number, step in enumerate(steps):
                axes.plot(
                    widths,
                    size_WS[:, step],
                    color=COLOURS[number],
                    linewidth=1.3,
                    marker="o",
                    markersize=2.5,
                    label=f"step {step}",
                )
            axes.set_xscale("log", base=2)
            axes.set_yscale("log")
            axes.set_xticks(list(widths), [str(width) for width in widths])
            axes.xaxis.set_minor_locator(NullLocator())
            low = min(run[place].min() for run in runs.values())
            high = max(run[place].max() for run in runs.values())
            axes.set_ylim(low / 1.5, high * 1.5)
            if row == 0:
                axes.text(0.03, 0.93, place, transform=axes.transAxes, fontsize=9)
            if row == 0 and column == 0:
                add_legend(axes)
    return figure
