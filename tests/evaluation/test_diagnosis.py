"""What a run's evaluations say of it."""

import pytest

from llm_jax.evaluation.diagnosis import diagnose

BASELINES = {"uniform": 9.0, "unigram": 6.0, "bigram": 4.0, "trigram": 4.5}
RUNS = {
    "no trend yet": ([5.0], "unknown"),
    "falls": ([9.0, 7.0, 6.0, 5.5, 5.2, 5.0], "falling"),
    "has levelled off": ([9.0, 5.2, 5.01, 5.005, 5.003, 5.0], "level"),
    "wavers about its best": ([9.0, 5.0, 5.01, 5.02, 5.01, 5.02], "level"),
    "rises for long": ([9.0, 5.0, 5.1, 5.2, 5.3], "rising"),
    "rises a little, twice": ([9.0, 5.0, 5.03, 5.04], "rising"),
    "one worse evaluation": ([9.0, 7.0, 5.0, 5.05], "level"),
    "one far worse evaluation": ([9.0, 7.0, 5.0, 5.2], "rising"),
    "came back to its best": ([9.0, 5.0, 5.4, 5.01], "falling"),
    "rises from the first": ([5.0, 5.2, 5.4], "rising"),
}


@pytest.mark.parametrize("name", RUNS)
def test_a_trend_is_told_from_noise(name: str) -> None:
    losses, trend = RUNS[name]
    found = diagnose([(100 * number, loss) for number, loss in enumerate(losses)])
    assert found is not None
    assert found.trend == trend
    assert found.best_loss == min(losses)
    assert found.best_step == 100 * losses.index(min(losses))
    assert (found.last_step, found.last_loss) == (100 * (len(losses) - 1), losses[-1])


def test_baselines_are_held_against_the_best_loss() -> None:
    found = diagnose([(0, 9.5), (10, 4.2), (20, 7.0)], BASELINES)
    assert found is not None
    assert found.beaten == ("uniform", "unigram", "trigram")
    assert found.missed == ("bigram",)


def test_without_an_evaluation_there_is_nothing_to_say() -> None:
    assert diagnose([], BASELINES) is None
