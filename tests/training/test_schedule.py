"""Laws of the learning rate: where it begins and ends, and what lies in between."""

import dataclasses
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from llm_jax.base.batch import Batch
from llm_jax.config.model import ModelConfig
from llm_jax.config.run import Config, OptimConfig, TrainConfig
from llm_jax.training.schedule import make_horizon, make_schedule
from llm_jax.training.state import init_state
from llm_jax.training.step import run_steps

pytestmark = pytest.mark.compiles

MOST = 64  # steps; one length of arrays for all, so that nothing is compiled for each


def rates(optim: OptimConfig, steps: int) -> np.ndarray:
    """Of each step of a run, [steps]."""
    return np.asarray(make_schedule(optim, make_horizon(optim, steps))(jnp.arange(MOST)))[:steps]


SCHEDULES = {
    "constant": ({}, {0: 1.0, 50: 1.0, 100: 1.0}),
    "cosine": ({"schedule": "cosine", "final_fraction": 0.1}, {0: 1.0, 50: 0.55, 100: 0.1}),
    "wsd": ({"schedule": "wsd", "decay_fraction": 0.2}, {0: 1.0, 80: 1.0, 90: 0.5, 100: 0.0}),
    "wsd, all of it": ({"schedule": "wsd", "decay_fraction": 1.0}, {0: 1.0, 25: 0.75, 100: 0.0}),
    "wsd, none of it": ({"schedule": "wsd", "decay_fraction": 0.0}, {99: 1.0, 100: 0.0}),
    "warm-up": ({"warmup_steps": 9}, {0: 0.1, 4: 0.5, 9: 1.0, 100: 1.0}),
    "warm-up, wsd": ({"warmup_steps": 9, "schedule": "wsd"}, {4: 0.5, 80: 1.0, 90: 0.5, 100: 0.0}),
    "warm-up, cosine": ({"warmup_steps": 20, "schedule": "cosine"}, {20: 1.0, 60: 0.5, 100: 0.0}),
    "warm-up, wsd over all": (
        {"warmup_steps": 20, "schedule": "wsd", "decay_fraction": 1.0},
        {0: 1 / 21, 20: 1.0, 60: 0.5, 100: 0.0},
    ),
    "warm-up alone, wsd": (
        {"warmup_steps": 101, "schedule": "wsd", "final_fraction": 0.3},
        {0: 1 / 101, 99: 100 / 101, 100: 0.3},
    ),
}


@pytest.mark.parametrize("name", SCHEDULES)
def test_schedule_passes_through_its_points(name: str) -> None:
    fields, points = SCHEDULES[name]
    optim = OptimConfig(learning_rate=2.0, **fields)
    schedule = make_schedule(optim, make_horizon(optim, 101))
    for step, share in points.items():
        np.testing.assert_allclose(schedule(step), 2.0 * share, atol=1e-6, err_msg=f"step {step}")


@given(
    schedule=st.sampled_from(["constant", "cosine", "wsd"]),
    steps=st.integers(1, MOST),
    warmup=st.integers(0, MOST + 9),
    decay=st.floats(0, 1),
    final=st.just(0.0) | st.floats(1e-6, 1),
    peak=st.floats(1e-6, 10),
)
@example(schedule="wsd", steps=60, warmup=10, decay=1.0, final=0.0, peak=1e-3)
@example(schedule="wsd", steps=10, warmup=10, decay=0.2, final=1.0, peak=1e-3)
@example(schedule="cosine", steps=1, warmup=0, decay=0.2, final=0.1, peak=1e-3)
@example(schedule="cosine", steps=2, warmup=1, decay=0.2, final=0.1, peak=1e-3)
@example(schedule="cosine", steps=10, warmup=0, decay=0.0, final=1.0, peak=3.0)
@example(schedule="wsd", steps=42, warmup=0, decay=1.0, final=0.0, peak=1.0)
@settings(deadline=None, max_examples=150)
def test_the_rate_ends_where_it_says_whatever_the_warm_up_and_stays_between_0_and_the_peak(
    schedule: Any, steps: int, warmup: int, decay: float, final: float, peak: float
) -> None:
    optim = OptimConfig(
        learning_rate=peak,
        schedule=schedule,
        warmup_steps=warmup,
        decay_fraction=decay,
        final_fraction=final,
    )
    rate, peak = rates(optim, steps), np.float32(peak)
    assert np.all((rate >= 0) & (rate <= peak))
    falls = schedule != "constant"
    if falls:
        assert rate[-1] == np.float32(optim.learning_rate * final)
        warmup = min(warmup, steps - 1)
    rising = min(warmup, steps - falls)  # steps whose rate the warm-up alone decides
    np.testing.assert_allclose(rate[:rising], peak * np.arange(1, rising + 1) / (warmup + 1), rtol=1e-6)
    changes = np.diff(rate[max(0, warmup - 1) :])
    if not falls:
        assert np.all(rate[warmup:] == peak)
        return
    # After the warm-up it falls, and by no more at a time than a fall of that length does.
    assert np.all(np.diff(rate[warmup:]) <= 0)
    length = steps - 1 if schedule == "cosine" else round(steps * decay)
    length = max(1, min(length, steps - 1 - warmup))
    steepest = (np.pi / 2 if schedule == "cosine" else 1) / length
    assert np.all(np.abs(changes) <= peak * max(steepest * (1 - final), 1 / (warmup + 1)) * (1 + 1e-4))
    if warmup < steps - 1:
        assert rate[warmup] == peak


@pytest.mark.parametrize("bad", [(), (2, 5)], ids=["every step", "but for two that are not finite"])
def test_the_last_step_that_is_done_has_the_final_rate(tiny: ModelConfig, bad: tuple[int, ...]) -> None:
    optim = OptimConfig(schedule="wsd", warmup_steps=2, decay_fraction=1.0, final_fraction=0.1)
    model = dataclasses.replace(tiny, num_layers=1)
    config = Config(model=model, optim=optim, train=TrainConfig(steps=8, batch_size=2, steps_per_dispatch=8))
    window = np.random.default_rng(0).integers(0, model.vocab_size, (2, model.context_length + 1), np.int32)
    weights = np.ones(window[:, 1:].shape, np.float32)
    factors = [np.nan if number in bad else 1 for number in range(8)]
    batches = [Batch(window[:, :-1], window[:, 1:], weights * factor) for factor in factors]
    _, metrics = run_steps(config, init_state(config), batches, [True] * 8)
    np.testing.assert_allclose(metrics["learning_rate"], rates(optim, 8), rtol=1e-6)
    assert metrics["learning_rate"][-1] == np.float32(1e-4)
