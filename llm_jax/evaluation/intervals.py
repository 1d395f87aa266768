"""How sure a score is: 95 % intervals for shares, means, and whatever is computed from counts.

The bootstrap (Efron 1979) draws the sample again from itself, with replacement, and computes the score anew;
its interval runs from the 2.5th to the 97.5th percentile. What is drawn is a unit: a row, or a sentence where
the rows of one are not independent. Units that are alike are drawn as one with their number. A sample without
an error gives a bootstrap of one point: then Wilson's interval of the accuracy says how sure it is.

Letters: R resamples, U units, N rows.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

_Z = 1.959963984540054  # of 95 %
_RESAMPLES = 1000
_CELLS = 4_000_000  # drawn at once


class Estimate(NamedTuple):
    """A score with its 95 % interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.4f} [{self.low:.4f}, {self.high:.4f}]"


def wilson(hits: int, total: int) -> Estimate:
    """Return hits / total with Wilson's score interval (1927), which holds for shares near 0 and 1 too.

    Args:
        hits: of independent trials.
        total: trials, 1 or more.
    """
    share, squared = hits / total, _Z**2
    centre = (share + squared / (2 * total)) / (1 + squared / total)
    spread = share * (1 - share) / total + squared / (4 * total**2)
    half = _Z / (1 + squared / total) * math.sqrt(spread)
    # Rounding must not leave the value outside where there are no hits, or nothing else.
    return Estimate(share, max(0.0, min(share, centre - half)), min(1.0, max(share, centre + half)))


def mean_estimate(values_N: np.ndarray) -> Estimate:
    """Return the mean of independent values [N] with 1.96 standard errors on both sides, 0 where N is 1."""
    mean = float(values_N.mean())
    half = _Z * float(values_N.std(ddof=1)) / math.sqrt(len(values_N)) if len(values_N) > 1 else 0.0
    return Estimate(mean, mean - half, mean + half)


def bootstrap(
    count_U: np.ndarray, score: Callable[[np.ndarray], np.ndarray], width: int, seed: int = 0
) -> list[Estimate]:
    """Return each score of the sample with its interval over resamples of its units.

    Args:
        count_U: how often each unit is in the sample, whole numbers.
        score: of how often each unit was drawn [R, U], the scores [R, K] of each resample.
        width: numbers that `score` looks at for one resample, which bound how many are drawn at once.
        seed: of the draws.
    """
    value_K = score(count_U[None])[0]
    random, total = np.random.default_rng(seed), int(count_U.sum())
    at_once = max(1, min(_RESAMPLES, _CELLS // max(1, width, len(count_U))))
    drawn = [
        score(random.multinomial(total, count_U / total, size=min(at_once, _RESAMPLES - done)))
        for done in range(0, _RESAMPLES, at_once)
    ]
    low_K, high_K = np.percentile(np.concatenate(drawn), [2.5, 97.5], axis=0)
    return [Estimate(*map(float, each)) for each in zip(value_K, low_K, high_K, strict=True)]


def divide(over: np.ndarray, under: np.ndarray) -> np.ndarray:
    """Return over / under, and 0 where there is nothing to divide by, as scikit-learn does."""
    return np.divide(over, under, out=np.zeros(np.broadcast(over, under).shape), where=np.asarray(under) != 0)
