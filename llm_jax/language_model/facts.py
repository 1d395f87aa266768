"""A model in one line, and as a row of a table."""

from collections.abc import Mapping
from typing import Any

from llm_jax.base.tree import Tree, count_parameters
from llm_jax.config.model import ModelConfig


def model_facts(config: ModelConfig, params: Tree, about: Mapping[str, Any]) -> dict[str, str]:
    """Return what a person asks of a model first, by name, each as a phrase that stands by itself."""
    step = about.get("step")
    return ({} if step is None else {"step": f"step {step:,}"}) | {
        "layers": f"{config.num_layers} layer{'s' * (config.num_layers != 1)}",
        "width": f"d_model {config.d_model}",
        "context": f"context {config.context_length:,}",
        "vocabulary": f"{config.vocab_size:,} token ids",
        "parameters": f"{count_parameters(params):,} parameters",
    }
