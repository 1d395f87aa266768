"""The numbers of a curve as its page's script draws them: over steps, tokens or time.

An entry is a line of metrics.jsonl with "training_tokens" beside its "step" (`with_tokens`).
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from llm_jax.config.run import Config

Entries = Sequence[Mapping[str, Any]]
_AXES = ("step", "training_tokens", "elapsed_seconds")
_MOST_POINTS = 600  # of a line on a page; of more, the lowest and the highest of each group stay


class Line(NamedTuple):
    """A line of a chart."""

    name: str  # in the legend; "" for a line that has no values of its own
    colour: str
    points: Sequence[Sequence[float | None]]  # step, tokens, seconds, value, and half the band's height
    style: str = ""  # of "faint", "bold" and "dots"
    dash: str = ""  # lengths in pixels


class Chart(NamedTuple):
    """All that a script needs to draw a curve again, with other axes."""

    lines: Sequence[Line]
    axis: str  # what the vertical one shows
    scale: str = "linear"  # as a `Measure`'s
    limits: tuple[float, float] | None = None  # of the vertical axis; None: those of the values
    levels: Sequence[tuple[str, float]] = ()

    def plain(self) -> dict[str, Any]:
        """Return it as values for JSON."""
        return self._asdict() | {"lines": [line._asdict() for line in self.lines]}


def with_tokens(
    entries: Entries, config: Config, history: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """Return the entries, each with the "training_tokens" that had been read by its step.

    Args:
        entries: lines of metrics.jsonl.
        config: the run's newest configuration.
        history: the run's changes, among which may be the batch's size.
    """
    sizes: list[tuple[int, int]] = []  # (last step with it, sequences in a batch)
    for line in history:
        size = line["changes"].get("train.batch_size", (None,))[0]
        if isinstance(size, int):
            sizes.append((line["step"], size))

    def tokens(step: int) -> int:
        sequences = begun = 0
        for last, size in sizes:
            sequences += max(0, min(step, last) - begun) * size
            begun = max(begun, last)
        sequences += max(0, step - begun) * config.train.batch_size
        return sequences * config.model.context_length

    return [dict(entry) | {"training_tokens": tokens(entry["step"])} for entry in entries]


def points(
    entries: Entries, values: Sequence[float], bands: Sequence[float] = ()
) -> list[list[float | None]]:
    """Return a `Line`'s points.

    Args:
        entries: of the N points, in order.
        values: N of them.
        bands: N half heights of a band around the line, or none.
    """
    rows: list[list[float | None]] = [
        [*(_short(entry.get(axis)) for axis in _AXES), _short(value)]
        for entry, value in zip(entries, values, strict=True)
    ]
    if bands:
        rows = [[*row, _short(band)] for row, band in zip(rows, bands, strict=True)]
    if len(rows) <= _MOST_POINTS:
        return rows
    groups = _MOST_POINTS // 2
    kept = {0, len(rows) - 1}
    for group in range(groups):
        places = range(group * len(rows) // groups, (group + 1) * len(rows) // groups)
        kept |= {min(places, key=lambda at: values[at]), max(places, key=lambda at: values[at])}
    return [rows[at] for at in sorted(kept)]


def _short(value: Any) -> float | None:
    """A number in six digits, whole ones whole; None stays."""
    return value if value is None or isinstance(value, int) else float(f"{float(value):.6g}")
