"""The settings that a run takes over from the model that it starts from, as a layer below its own."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llm_jax.config.load import inherited_layer


def _inherited(init_from: str, run: Path) -> Mapping[str, Any]:
    from llm_jax.runs.init_from import inherited_settings  # JAX, which other configurations are read without

    return inherited_settings(init_from, run)


INHERITED = inherited_layer(_inherited)
