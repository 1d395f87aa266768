"""Kinks: a ReLU whose input is zero up to rounding, so that rounding decides whether its unit is on.

There the loss is continuous and its gradient jumps. Two programs that differ in nothing but the order of
their sums may fall on different sides, and AdamW carries the jump into every later loss. So where our losses
leave a reference's, each kink that our run passed before is tried on its other side: the unit's bias gets a
nudge as small as rounding, and the run starts again. If its losses then stay within the same bound to the
end, that side was all that differed. A nudge that makes no gradient jump is no kink and is not tried.

Legend: L layers, B batch, T tokens, F units of a layer's MLP.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from llm_jax.proofs.golden_file import Arrays

ULP = 2.0**-23  # of float32
NEAR = 8.0  # within so many ulps of zero, rounding may put an input on either side
FIRM = 2.0  # so many ulps away from zero, it is on the same side in all our programs
JUMP = 1e-5  # of a tensor's largest gradient: what rounding alone does not do
MOST = 4  # kinks in one run


class Kink(NamedTuple):
    """A unit on the side that is tried, at one token of one step; counted from 0, as in the arrays."""

    step: int
    layer: int
    unit: int
    row: int
    token: int
    input: float  # of the ReLU, in our run
    ulps: float  # the same in units in the last place of the sum of its terms' sizes, float32
    on: bool  # the side
    nudge: float  # added to the unit's bias before the step
    jump: float  # what the side changes of the step's gradients, relative to the largest of its own tensor


class Program(NamedTuple):
    """The program under proof; weights and gradients go by torch's names."""

    logits: Callable[[Arrays, np.ndarray], np.ndarray]  # weights, tokens [B, T] -> [B, T, V]
    loss_and_gradients: Callable[[Arrays, np.ndarray], tuple[float, Arrays]]  # weights, tokens [B, T + 1]
    # weights, tokens [B, T] -> inputs of the ReLUs, and the sums of the sizes of their terms, [L, B, T, F]
    relu_inputs: Callable[[Arrays, np.ndarray], tuple[np.ndarray, np.ndarray]]
    nudged: Callable[[Arrays, Kink], Arrays]  # weights -> weights
    # weights, batches, rate, kinks -> loss of each step, and what gives the weights after it until the next
    train: Callable[[Arrays, np.ndarray, float, Sequence[Kink]], Iterator[tuple[float, Callable[[], Arrays]]]]
    greedy: Callable[[Arrays, np.ndarray, int], np.ndarray]  # weights, prompt, tokens in all -> tokens


class Wanted(NamedTuple):
    """A reference's run."""

    weights: Arrays  # before the first step
    batches: np.ndarray  # [steps, B, T + 1]
    rate: float
    losses: np.ndarray  # [steps]
    bound: float  # on the absolute difference of each


class Followed(NamedTuple):
    """Our run beside a reference's."""

    losses: np.ndarray  # [steps], ours with these kinks
    weights: Arrays  # after the last step
    kinks: list[Kink]  # by which ours stays within the bound; none are needed, or none help
    tried: int  # kinks, each on one side
    bound: float
    leaves_at: int | None  # the first step whose loss is out of the bound as run, before any kink was tried
    as_run: float  # the largest difference as run


def follow(program: Program, wanted: Wanted, report: Callable[[str], None]) -> Followed:
    """Return our run, on the branch that stays within the bound if kinks lead there.

    Args:
        program: ours.
        wanted: what is to be followed.
        report: gets a line before long work.
    """
    losses, weights = _run(program, wanted, [])
    as_run = float(np.max(np.abs(losses - wanted.losses)))
    leaves_at = reach = _within(wanted, losses)
    end, kinks, tried = len(losses), [], 0
    while reach < end and len(kinks) < MOST:
        report(f"losses are out of their bound at step {reach}: trying sides that rounding decided before it")
        further, best = reach, None
        for kink in sorted(_passed(program, wanted, kinks, reach), key=lambda kink: kink.ulps):
            tried += 1
            if (got := _within(wanted, _losses(program, wanted, [*kinks, kink]))) > further:
                further, best = got, kink
            if further == end:
                break
        if best is None:
            break
        kinks, reach = [*kinks, best], further
    if reach < end:
        kinks = []
    if kinks:
        losses, weights = _run(program, wanted, kinks)
    left = leaves_at if leaves_at < end else None
    return Followed(losses, weights, kinks, tried, wanted.bound, left, as_run)


def _run(program: Program, wanted: Wanted, kinks: Sequence[Kink]) -> tuple[np.ndarray, Arrays]:
    losses, weights = [], {}
    for loss, after in program.train(wanted.weights, wanted.batches, wanted.rate, kinks):
        losses.append(loss)
        if len(losses) == len(wanted.losses):
            weights = after()
    return np.array(losses), weights


def _losses(program: Program, wanted: Wanted, kinks: Sequence[Kink]) -> Iterable[float]:
    return (loss for loss, _ in program.train(wanted.weights, wanted.batches, wanted.rate, kinks))


def _within(wanted: Wanted, losses: Iterable[float]) -> int:
    """The first step whose loss is out of the bound, where it stops; the number of steps if none is."""
    for step, (got, reference) in enumerate(zip(losses, wanted.losses, strict=False)):
        if not abs(got - reference) <= wanted.bound:
            return step
    return len(wanted.losses)


def _passed(program: Program, wanted: Wanted, kinks: Sequence[Kink], until: int) -> Iterator[Kink]:
    """Kinks of our run before a step's loss, each on the side or sides on which it may not have been."""
    taken = {kink[:5] for kink in kinks}
    steps = program.train(wanted.weights, wanted.batches[:until], wanted.rate, kinks)
    before = wanted.weights
    for step, (tokens, (_, after)) in enumerate(zip(wanted.batches, steps, strict=False)):
        for kink in near(program, before, tokens, step):
            if kink[:5] not in taken:
                yield kink
        before = after()


def near(program: Program, weights: Arrays, tokens: np.ndarray, step: int) -> Iterator[Kink]:
    """Return kinks under these weights and tokens [B, T + 1]."""
    inputs, sizes = program.relu_inputs(weights, tokens[:, :-1])
    for place in np.argwhere(np.abs(inputs) <= NEAR * ULP * sizes):
        layer, row, token, unit = map(int, place)
        value, ulp = float(inputs[layer, row, token, unit]), ULP * float(sizes[layer, row, token, unit])
        sides = [
            Kink(step, layer, unit, row, token, value, abs(value) / ulp, on, aim * ulp - value, 0.0)
            for on, aim in ((False, -FIRM), (True, FIRM))
        ]
        off, on = (program.loss_and_gradients(program.nudged(weights, side), tokens)[1] for side in sides)
        jump = max(_relative(on[name] - off[name], on[name]) for name in on)
        for side in sides:
            # Where it surely was on this side anyway there is nothing to try.
            if jump > JUMP and (abs(value) <= FIRM * ulp or side.on != (value > 0)):
                yield side._replace(jump=jump)


def _relative(difference: np.ndarray, tensor: np.ndarray) -> float:
    return float(np.max(np.abs(difference)) / max(np.max(np.abs(tensor)), 1e-30))
