"""Configurations of public repositories as they lie there, and the same with tiny dimensions."""

import json
from pathlib import Path
from typing import Any

# Repository -> where its files were found, and each file's fields: facts alone, no weights, no templates.
PUBLIC: dict[str, dict[str, Any]] = json.loads(
    (Path(__file__).parent / "data/public_configs.json").read_text()
)
_SMALL = {"vocab_size": 272, "hidden_size": 32, "intermediate_size": 40, "moe_intermediate_size": 24}
_SMALL |= {"num_hidden_layers": 2, "num_attention_heads": 4, "head_dim": 16, "max_position_embeddings": 64}
_SMALL |= {"num_experts": 4, "num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": 5}
_SMALL |= {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64, "n_ctx": 64}
_SMALL |= {"original_max_position_embeddings": 16}
_IDS = ("bos_token_id", "eos_token_id", "pad_token_id")


def shrunk(config: dict[str, Any]) -> dict[str, Any]:
    """The same fields, those of dimensions that are there made small; all others are as they were."""
    small = {name: _SMALL[name] for name, value in config.items() if name in _SMALL and value is not None}
    heads, shared = config.get("num_attention_heads"), config.get("num_key_value_heads")
    if shared is not None:
        small["num_key_value_heads"] = 4 if shared == heads else 2
    if config.get("layer_types"):
        small["layer_types"] = config["layer_types"][-2:]
    if (scaling := config.get("rope_scaling")) and "original_max_position_embeddings" in scaling:
        small["rope_scaling"] = scaling | {"original_max_position_embeddings": 16}
    small |= {name: _inside(config[name]) for name in _IDS if name in config}
    return config | small


def _inside(ids: Any) -> Any:
    """Ids of tokens that a small vocabulary has."""
    return [_inside(each) for each in ids] if isinstance(ids, list) else ids if ids is None else ids % 100


def files(name: str) -> dict[str, dict[str, Any]]:
    """Repository -> fields, of those that have a file of this name."""
    return {repository: found[name] for repository, found in PUBLIC.items() if name in found}


REFUSED = {
    "google/gemma-3-4b-it": "got 'gemma3', a model of more than text",
    "microsoft/Phi-3.5-mini-instruct": "rope_type longrope is not supported",
    "Qwen/Qwen3-32B-FP8": "quantization_config",
}
"""Those that say by name what this program has not got."""
