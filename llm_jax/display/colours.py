"""Losses as colours in a terminal."""

import math

# From which loss in nats a token has which colour: on a dark and on a light terminal, and with 16 colours.
SHADES = (
    (8.0, "bold #ffffff on #b2182b"),
    (6.0, "black on #ef8a62"),
    (4.0, "black on #e6c84c"),
    (2.0, "black on #60d060"),
    (0.0, "black on #4fc3c7"),
)


def shade(nats: float | None) -> str:
    """Return the rich style of a token with this loss; dim for one that is no target, NaN is the worst."""
    if nats is None:
        return "dim"
    return next((style for least, style in SHADES if nats >= least or math.isnan(nats)), SHADES[-1][1])


def legend() -> list[tuple[str, str]]:
    """Return the scale as (text, style), mildest first."""
    return [(f" {least:g}+ ", style) for least, style in reversed(SHADES)]
