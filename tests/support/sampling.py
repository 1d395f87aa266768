"""Sampling from the model's own distribution, with every filter off but those that a test is about."""

import dataclasses
from typing import Any

from llm_jax.config.decoding import SamplingConfig

PLAIN = SamplingConfig(temperature=1, top_p=1)


def plain_but(**options: Any) -> SamplingConfig:
    """Plain sampling with these options."""
    return dataclasses.replace(PLAIN, **options)
