"""The learning rate over a run."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from llm_jax.config.run import OptimConfig


class Horizon(NamedTuple):
    """Where the schedule turns, [] each: numbers that are no part of the compiled program."""

    steps: jax.Array  # of the whole run
    warmup_steps: jax.Array
    skipped: jax.Array  # steps so far that had no effect: time passed, but the optimizer did not count them


def make_horizon(optim: OptimConfig, steps: int) -> Horizon:
    """Return the horizon of a run of so many steps, of which none was skipped."""
    return Horizon(jnp.int32(steps), jnp.int32(optim.warmup_steps), jnp.int32(0))


def make_schedule(optim: OptimConfig, horizon: Horizon) -> optax.Schedule:
    """Return learning rate by the optimizer's count: a straight warm-up, then constant, cosine or
    warm-up-stable-decay.

    Cosine and wsd give the last step exactly `final_fraction` of the peak. The warm-up comes first: the fall
    has what it leaves, one step at least, and a warm-up as long as the run ends one step early.

    Args:
        optim: the peak and the shape.
        horizon: of the run.
    """
    peak, (steps, warmup, skipped) = optim.learning_rate, horizon
    last, falls, floor = steps - 1, optim.schedule != "constant", peak * optim.final_fraction
    if falls:
        warmup = jnp.minimum(warmup, last)
    wanted = jnp.round(steps * optim.decay_fraction) if optim.schedule == "wsd" else last
    falling = jnp.clip(wanted, 1, jnp.maximum(1, last - warmup))

    def schedule(count: jax.typing.ArrayLike) -> jax.Array:
        count = jnp.asarray(count) + skipped
        # The first step already moves: it is one of warmup_steps equal rises, not a step at rate 0.
        rising = jnp.where(count < warmup, peak * (count + 1) / (warmup + 1), peak)
        if not falls:
            return rising
        left = jnp.clip((last - count) / falling, 0, 1)
        share = left if optim.schedule == "wsd" else (1 - jnp.cos(jnp.pi * left)) / 2
        # Rounded, too, both operations never rise where the share falls.
        return jnp.minimum(rising, jnp.where(last - count < falling, floor + (peak - floor) * share, peak))

    return schedule
