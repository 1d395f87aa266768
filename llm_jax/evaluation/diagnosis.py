"""What a run's evaluations say of it: falling, level or rising, and which baselines it beats."""

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

# What counts as a change of the loss: a share of it, well above what one evaluation differs from the next.
CHANGE = 0.005
_SUDDEN = 4 * CHANGE  # from one evaluation to the next, where a rise has only one to show for it


class Diagnosis(NamedTuple):
    """What a run's evaluations say of it."""

    trend: Literal["unknown", "falling", "level", "rising"]  # of the loss, at the last evaluation
    best_step: int
    best_loss: float
    last_step: int
    last_loss: float
    beaten: tuple[str, ...]  # baselines above the best loss
    missed: tuple[str, ...]  # those that it does not beat


def diagnose(
    evaluations: Sequence[tuple[int, float]], baselines: Mapping[str, float] = {}
) -> Diagnosis | None:
    """Return what evaluations say of a run; None without one.

    Rising: the last ones lie above the best by more than `CHANGE`, two of them or one far above. Falling: the
    last quarter of the steps has lowered the loss by more than `CHANGE`. Unknown with fewer than two.

    Args:
        evaluations: (step, finite loss), in the order of steps.
        baselines: losses that the best one is held against, by name.
    """
    if not evaluations:
        return None
    best_step, best_loss = min(evaluations, key=lambda each: each[1])
    last_step, last_loss = evaluations[-1]
    return Diagnosis(
        "unknown" if len(evaluations) < 2 else _trend(evaluations, best_step, best_loss),
        *(best_step, best_loss, last_step, last_loss),
        tuple(name for name, loss in baselines.items() if best_loss < loss),
        tuple(name for name, loss in baselines.items() if best_loss >= loss),
    )


def _trend(
    evaluations: Sequence[tuple[int, float]], best_step: int, best_loss: float
) -> Literal["falling", "level", "rising"]:
    (first_step, _), (last_step, last_loss) = evaluations[0], evaluations[-1]
    later = [loss for step, loss in evaluations if step > best_step]
    above = (CHANGE if len(later) > 1 else _SUDDEN) * abs(best_loss)
    if later and min(later[-2:]) > best_loss + above:
        return "rising"
    quarter = last_step - (last_step - first_step) / 4
    before = [loss for step, loss in evaluations[:-1] if step <= quarter][-1]
    return "falling" if before - last_loss > CHANGE * abs(last_loss) else "level"
