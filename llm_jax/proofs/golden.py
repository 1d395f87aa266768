"""Proof against golden numbers: the same weights and batches through our program, and how far each number is
from torch's. What computes is passed in.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from llm_jax.base.errors import DataError
from llm_jax.proofs.golden_file import Arrays, group
from llm_jax.proofs.kinks import Followed, Program, Wanted, follow


class Bounds(NamedTuple):
    """What must hold; infinity where the figure is for information."""

    first: float  # logits and loss of the first batch, absolute
    gradients: float  # relative to the largest of its tensor
    losses: float  # of AdamW's steps, absolute


FLOAT32 = Bounds(first=3e-6, gradients=1e-5, losses=1e-5)
FOR_INFORMATION = Bounds(math.inf, math.inf, math.inf)


def on_a_branch(golden: Arrays) -> Bounds:
    """Return what float64 must keep where float32 had to be put on the branch that rounding chose.

    Its own rounding is none, which leaves torch's: 1 to 2 units in the last place of the losses, as measured.
    A fault that is small enough to hide behind a branch in float32 shows here.
    """
    return FOR_INFORMATION._replace(
        losses=4 * float(np.spacing(np.float32(np.max(np.abs(golden["losses"])))))
    )


class Row(NamedTuple):
    """One comparison."""

    quantity: str
    absolute: float  # largest absolute difference
    relative: float  # the same, relative to the largest value of its own tensor
    bound: str  # what must hold; empty where the figure is for information
    holds: bool


def compare(
    golden: Arrays, program: Program, bounds: Bounds, report: Callable[[str], None], *, search: bool = True
) -> tuple[list[Row], Followed]:
    """Return every number of the golden file beside ours, and how our run followed its losses.

    Args:
        golden: as `read_golden` gives it.
        program: ours, in one precision.
        bounds: that apply.
        report: gets a line before long work.
        search: whether losses that leave their bound, or float32's, are looked for on other branches.
    """
    weights, tokens = group(golden, "init"), golden["tokens"]
    logits = program.logits(weights, tokens[0][:, :-1])
    rows = [_row("logits", logits, golden["logits0"], "absolute", bounds.first)]
    loss, gradients = program.loss_and_gradients(weights, tokens[0])
    rows.append(_row("loss", np.array(loss), golden["loss0"], "absolute", bounds.first))
    wanted = group(golden, "grad0")
    if odd := sorted(wanted.keys() ^ gradients.keys()):
        said = "is the gradient of none" if odd[0] in wanted else "is missing"
        raise DataError(f"the golden file must have a gradient for each weight, but grad0/{odd[0]} {said}")
    each = [_row(name, gradients[name], wanted[name], "relative", bounds.gradients) for name in wanted]
    rows.append(_worst(f"{len(each)} gradients", each))
    aim = min(bounds.losses, FLOAT32.losses) if search else math.inf
    run = Wanted(weights, tokens, float(golden["lr"]), golden["losses"], aim)
    followed = follow(program, run, report)
    name = f"{len(tokens)} AdamW losses"
    rows.append(_row(name, followed.losses, golden["losses"], "absolute", bounds.losses))
    each = [
        _row(name, followed.weights[name], tensor, "absolute", math.inf)
        for name, tensor in group(golden, "final").items()
    ]
    rows.append(_worst("weights after them", each))
    greedy = program.greedy(group(golden, "final"), golden["greedy_prompt"], golden["greedy"].size)
    different = int(np.sum(greedy.ravel() != golden["greedy"].ravel()))
    rows.append(
        Row("greedy tokens that differ", different, different / golden["greedy"].size, "0", different == 0)
    )
    return rows, followed


def _row(name: str, got: Any, wanted: np.ndarray, kind: str, bound: float) -> Row:
    got = np.asarray(got, np.float64)
    if got.shape != wanted.shape:
        raise DataError(f"{name} has shape {got.shape}, the golden file has {wanted.shape}")
    absolute = float(np.max(np.abs(got - wanted), initial=0))
    relative = absolute / max(float(np.max(np.abs(wanted), initial=0)), 1e-30)
    figure = {"absolute": absolute, "relative": relative}[kind]
    said = f"{kind} <= {bound:.2g}" if math.isfinite(bound) else ""
    return Row(name, absolute, relative, said, bool(figure <= bound))


def _worst(name: str, rows: list[Row]) -> Row:
    worst = max(rows, key=lambda row: row.relative)
    return Row(
        f"{name} (worst: {worst.quantity})",
        max(row.absolute for row in rows),
        worst.relative,
        worst.bound,
        all(row.holds for row in rows),
    )
