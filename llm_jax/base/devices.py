"""What JAX has here: devices, and types that it does not narrow."""

import os
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from llm_jax.base.errors import UserError


def check_types(types: Iterable[str], what: str) -> None:
    """Raise UserError where JAX would narrow one of these types.

    Args:
        types: names like "float64".
        what: has them, for the message.
    """
    too_wide = [kind for kind in types if kind.endswith("64")]
    if too_wide and jnp.result_type(float) != jnp.float64:
        raise UserError(
            f"{what} is {too_wide[0]}, which JAX takes only where the environment has JAX_ENABLE_X64=1; set "
            "that, or choose float32"
        )


# The platform that programs are made for while it is set: part of what `jit` knows its programs by.
programs_for = jax.make_user_context(None)


def platform() -> str:
    """Return the platform that programs are made for: "cpu", "gpu" or "tpu"; that of JAX's first device where
    nobody says another.
    """
    return programs_for.value or first_device().platform


class Placement(NamedTuple):
    """Where arrays lie, as shardings that whoever runs a program hands in."""

    state: jax.sharding.Sharding  # of every leaf of a training state
    batches: jax.sharding.Sharding  # of batches [K, B, T]

    @property
    def platform(self) -> str:
        """ "cpu", "gpu" or "tpu"."""
        return next(iter(self.state.device_set)).platform


def made_for(placement: Placement | None) -> AbstractContextManager[Any]:
    """Make programs for a placement's platform within the block; without one nothing changes."""
    return nullcontext() if placement is None else programs_for(placement.platform)


def on_one_device() -> Placement:
    """Return a placement of everything on JAX's first device.

    Raises:
        UserError: there is none of the platform that JAX was told to use.
    """
    one = jax.sharding.SingleDeviceSharding(first_device())
    return Placement(one, one)


def first_device() -> Any:
    """Return JAX's first device; UserError where it has none of the platform that it was told to use."""
    try:
        return jax.devices()[0]
    except (RuntimeError, AssertionError) as error:  # The latter where it knows the platform by name alone.
        wanted = os.environ.get("JAX_PLATFORMS") or "any"
        raise UserError(
            f"JAX must have a device of the platform that it shall use (JAX_PLATFORMS is {wanted}), and has "
            f"none{f': {error}' if str(error) else ''}; JAX_PLATFORMS=cpu takes the processor"
        ) from None
