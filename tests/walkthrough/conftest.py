"""A tiny model and a text that tests of pages share."""

import dataclasses

import jax
import numpy as np
import pytest

from llm_jax.base.tree import Tree
from llm_jax.config.model import ModelConfig
from llm_jax.model.decoder import init_params


@pytest.fixture(params=[0, 9], ids=["all ids apart", "ids that share a row"])
def config(request: pytest.FixtureRequest, tiny: ModelConfig) -> ModelConfig:
    return dataclasses.replace(tiny, shared_ids=request.param)


@pytest.fixture
def params(config: ModelConfig) -> Tree:
    return init_params(jax.random.key(2), config)


@pytest.fixture
def text(config: ModelConfig) -> np.ndarray:
    return np.random.default_rng(3).integers(0, config.vocab_size, config.context_length + 1).astype(np.int32)
