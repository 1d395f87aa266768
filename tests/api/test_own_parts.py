"""Parts that a program hands in are looked at before anything is saved; each fault is one clear line."""

from typing import Any

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from llm_jax.base.batch import Batch
from llm_jax.base.errors import DataError, UserError
from llm_jax.config.model import ModelConfig
from llm_jax.config.run import Config, TrainConfig
from llm_jax.runs.own_parts import OwnParts, require_same_parts
from llm_jax.tasks.language_modelling import LANGUAGE_MODELLING


def batch_of(tokens: Any, columns: int = 12) -> Batch:
    return Batch(*(np.full((4, columns), value) for value in (tokens, tokens, 1.0)))


FAULTS: dict[str, tuple[OwnParts, str]] = {
    "a mean as loss": (OwnParts(loss=lambda *_: jnp.float32(1)), r"must return \(sum, weight\), two scalars"),
    "nats of each target": (
        OwnParts(loss=lambda params, config, batch, key: (batch.weights, jnp.float32(1))),
        r"got \[\(4, 12\), \(\)\]",
    ),
    "no optimizer of optax": (OwnParts(optimizer=3), "must be an optax.GradientTransformation"),  # type: ignore[arg-type]
    "a list of batches": (
        OwnParts(batches=[batch_of(1)]),  # type: ignore[arg-type]
        "must be a function of the batch's index, so that a resumed run draws the same",
    ),
    "another shape": (
        OwnParts(batches=lambda _: batch_of(1, 11)),
        r"each \(4, 12\) \(batch_size, context_length",
    ),
    "no batch": (OwnParts(batches=lambda _: 3), "got int"),  # type: ignore[arg-type,return-value]
    "an id that is none": (OwnParts(batches=lambda _: batch_of(37)), r"batches\(0\).tokens has token id 37"),
    "no whole numbers": (OwnParts(batches=lambda _: batch_of(1.5)), "must have whole numbers"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_part_that_is_not_as_it_must_be_is_refused(name: str, tiny: ModelConfig) -> None:
    own, message = FAULTS[name]
    config = Config(model=tiny, train=TrainConfig(batch_size=4))
    with pytest.raises((UserError, DataError), match=message):
        own.check(config, own.task(LANGUAGE_MODELLING))


def test_sound_parts_take_the_place_of_the_tasks(tiny: ModelConfig) -> None:
    loss = lambda params, config, batch, key: (jnp.sum(batch.weights), 4)  # noqa: E731
    own = OwnParts(loss, optax.sgd(0.1), lambda index: batch_of(index))
    task, config = own.task(LANGUAGE_MODELLING), Config(model=tiny, train=TrainConfig(batch_size=4))
    own.check(config, task)
    batch = task.batch_at(config, None, 5, None)  # type: ignore[arg-type]
    assert [part.dtype for part in batch[:3]] == [np.int32, np.int32, np.float32]
    assert batch.tokens[0, 0] == 5
    # A value, so that a second call with the same loss compiles nothing.
    assert own.task(LANGUAGE_MODELLING).objective == task.objective
    assert task.evaluate is LANGUAGE_MODELLING.evaluate


def test_a_run_goes_on_with_the_parts_that_it_began_with() -> None:
    sgd = OwnParts(optimizer=optax.sgd(0.1))
    require_same_parts({"own_parts": ["optimizer"]}, sgd)
    require_same_parts({}, OwnParts())  # a checkpoint from before there were any
    for recorded, own in (({}, sgd), ({"own_parts": ["loss"]}, sgd), ({"own_parts": ["loss"]}, OwnParts())):
        with pytest.raises(UserError, match=r"call llm_jax\.train with the same ones"):
            require_same_parts(recorded, own)
