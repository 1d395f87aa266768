"""Rules that a section of the configuration states about its fields, and types of options."""

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Annotated, Any

import cyclopts
from cyclopts import Parameter

from llm_jax.base.errors import UserError


def _whole_number(_: type, tokens: Sequence[cyclopts.Token], bits: int = 31) -> int:
    text = tokens[0].value
    digits = text.strip().lstrip("+-").replace("_", "")
    if not digits.isdigit():
        raise ValueError(f'must be a whole number, got "{text:.40}"')
    if len(digits) > 40 or int(digits) >= 1 << bits:
        raise ValueError(f"must be below 2**{bits}, got {text:.40}")
    return int(text)


Whole = Annotated[int, Parameter(converter=_whole_number)]
Seed = Annotated[int, Parameter(converter=partial(_whole_number, bits=63))]
# Of commands that read a model; `checkpoints.reader` says what it means.
Step = Annotated[
    str, Parameter(help="Which checkpoint: best (the lowest validation loss), last, or the number of a step.")
]


def require(rules: Mapping[str, bool]) -> None:
    """Raise one UserError with every broken rule (message -> whether it holds)."""
    broken = [message for message, holds in rules.items() if not holds]
    if broken:
        raise UserError("; ".join(broken))


def at_least(section: Any, least: float, *names: str) -> dict[str, bool]:
    """Return the rules that these fields are finite numbers of at least `least`."""
    values = {name: getattr(section, name) for name in names}
    return {f"{n} ({v}) must be at least {least}": least <= v < math.inf for n, v in values.items()}


def fractions(section: Any, *names: str) -> dict[str, bool]:
    """Return the rules that these fields are at least 0 and below 1."""
    values = {name: getattr(section, name) for name in names}
    return {f"{name} ({v}) must be at least 0 and below 1": 0 <= v < 1 for name, v in values.items()}
