"""The walkthrough's pictures: heat maps of tables and attention, sizes of the stream, a step from inside.

Legend: T tokens, D d_model, N heads, L layers.
"""

from collections.abc import Callable, Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from llm_jax.display.figures import COLOURS, bare_axes, new_figure, plain_axes
from llm_jax.walkthrough.lesson import Lesson

Names = Mapping[str, str]  # the words of [figure]


def picture(name: str, lesson: Lesson, names: Names) -> Figure | None:
    """Return the picture of a stage or of a section beyond the tutorial; None where a table says more."""
    blocks = lesson.seen.blocks
    masked = np.where(lesson.seen.attention_pattern.mask[0], 0.0, np.nan)
    pictures: dict[str, Callable[[], Figure]] = {
        "positions": lambda: _maps({names["positions"]: lesson.seen.position_embedding[0]}),
        "input": lambda: _maps(
            {
                names["token"]: lesson.seen.token_embedding[0],
                names["position"]: lesson.seen.position_embedding[0],
                names["sum"]: blocks.block_input[0, 0],
            }
        ),
        "projections": lambda: _maps(
            {
                symbol: x[0, 0].reshape(x.shape[2], -1)
                for symbol, x in (("Q", blocks.queries), ("K", blocks.keys), ("V", blocks.values))
            }
        ),
        "scores": lambda: _heads(blocks.scores[:, 0], names, "coolwarm"),
        "mask": lambda: _heads(blocks.scores[:, 0] + masked, names, "coolwarm"),
        "softmax": lambda: _heads(blocks.weights[:, 0] + masked, names, "viridis"),
        "mlp": lambda: _maps({names["mlp"]: blocks.mlp_active[0, 0]}),
        "block": lambda: _shares(lesson, names),
        "layers": lambda: _lengths(lesson, names),
        "step": lambda: _step(lesson),
    }
    return pictures[name]() if name in pictures else None


def _maps(maps: Mapping[str, np.ndarray]) -> Figure:
    """Matrices [rows, columns] side by side, each in its own colours around zero."""
    figure = new_figure(7.2, 2.2)
    for place, (title, matrix) in enumerate(maps.items(), start=1):
        axes = bare_axes(figure, 1, len(maps), place, title=title)
        _show(axes, matrix, "coolwarm")
    return figure


def _heads(square_LNTT: np.ndarray, names: Names, colours: str) -> Figure:
    """Every head of every layer as one sheet: a column for each layer, a row for each head."""
    layers, heads, size, _ = square_LNTT.shape
    gap = max(1, size // 8)
    cell = size + gap
    sheet = np.full((heads * cell - gap, layers * cell - gap), np.nan)
    for layer in range(layers):
        for head in range(heads):
            sheet[head * cell : head * cell + size, layer * cell : layer * cell + size] = square_LNTT[
                layer, head
            ]
    figure = new_figure(7.2, 7.2 * sheet.shape[0] / sheet.shape[1] + 0.4)
    axes = bare_axes(figure, 1, 1, 1)
    _show(axes, sheet, colours)
    axes.set_xticks([layer * cell + size / 2 for layer in range(layers)], _numbers(layers))
    axes.set_yticks([head * cell + size / 2 for head in range(heads)], _numbers(heads))
    axes.set_xlabel(names["layer"])
    axes.set_ylabel(names["head"])
    axes.tick_params(length=0)
    return figure


def _numbers(count: int) -> list[str]:
    return [str(number) for number in range(1, count + 1)]


def _show(axes: Axes, matrix: np.ndarray, colours: str) -> None:
    limit = float(np.nanmax(np.abs(matrix))) or 1.0
    low = -limit if colours == "coolwarm" else 0.0
    image = axes.imshow(matrix, cmap=colours, vmin=low, vmax=limit, aspect="auto", interpolation="nearest")
    image.set_rasterized(True)


def _shares(lesson: Lesson, names: Names) -> Figure:
    blocks = lesson.seen.blocks
    stream_L = _length(blocks.block_input)
    figure = new_figure(7.2, 2.6)
    axes = plain_axes(figure, 1, 1, 1, x=names["layer"], y=names["share"])
    number_L = np.arange(1, len(stream_L) + 1)
    for offset, name, added in (
        (-0.2, names["attention"], blocks.attention_output),
        (0.2, names["mlp_short"], blocks.mlp_output),
    ):
        colour = COLOURS[0 if offset < 0 else 1]
        axes.bar(number_L + offset, _length(added) / stream_L, width=0.36, color=colour, label=name)
    axes.set_xticks(number_L)
    axes.legend(frameon=False, fontsize=8, labelcolor="linecolor")
    return figure


def _lengths(lesson: Lesson, names: Names) -> Figure:
    blocks = lesson.seen.blocks
    length = np.concatenate([_length(blocks.block_input[:1]), _length(blocks.block_output)])
    figure = new_figure(7.2, 2.6)
    axes = plain_axes(figure, 1, 1, 1, x=names["layer"], y=names["length"])
    axes.plot(range(len(length)), length, color=COLOURS[0], marker="o")
    axes.set_xticks(range(len(length)), [names["start"], *_numbers(len(length) - 1)])
    axes.set_ylim(0)
    return figure


def _length(x_LBTD: np.ndarray) -> np.ndarray:
    """Mean Euclidean length of a token's row, by layer."""
    return np.linalg.norm(x_LBTD, axis=-1).mean(axis=(1, 2))


def _step(lesson: Lesson) -> Figure:
    """Update over size of each array of the blocks, by layer, as a power of ten."""
    inside = [move for move in lesson.movements if move.layer is not None]
    paths = list(dict.fromkeys(move.path for move in inside))
    sheet = np.full((len(paths), lesson.config.num_layers), np.nan)
    for move in inside:
        if move.update and move.size:
            sheet[paths.index(move.path), move.layer] = np.log10(move.update / move.size)
    figure = new_figure(7.2, 0.26 * len(paths) + 0.8)
    axes = bare_axes(figure, 1, 1, 1)
    image = axes.imshow(sheet, cmap="viridis", aspect="auto", interpolation="nearest")
    image.set_rasterized(True)
    axes.set_yticks(range(len(paths)), paths)
    axes.set_xticks(range(sheet.shape[1]), _numbers(sheet.shape[1]))
    axes.tick_params(length=0)
    for (row, column), value in np.ndenumerate(sheet):
        if np.isfinite(value):
            light = value > np.nanmin(sheet) + 0.6 * (np.nanmax(sheet) - np.nanmin(sheet))
            colour = "black" if light else "white"
            axes.text(column, row, f"{value:.1f}", ha="center", va="center", fontsize=7, color=colour)
    return figure
