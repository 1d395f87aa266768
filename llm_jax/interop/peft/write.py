"""Adapters that a run has trained, as the library peft loads them beside their base model."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from llm_jax.base.errors import CheckpointError
from llm_jax.base.tree import Tree
from llm_jax.config.lora import LoraConfig
from llm_jax.config.model import ModelConfig
from llm_jax.interop.huggingface.tensor_names import parts
from llm_jax.interop.huggingface.write_config import write_model_config
from llm_jax.interop.pytorch.state_dict import write_tensors
from llm_jax.model.lora import IN, MAGNITUDE, OUT

_PREFIX = "base_model.model."


def write_adapter(folder: Path, params: Tree, model: ModelConfig, lora: LoraConfig, base: str) -> int:
    """Write adapter_config.json and adapter_model.safetensors; return how many matrices are adapted.

    Args:
        folder: an empty directory.
        params: of the run, with their adapters beside the kernels.
        model: the decoder.
        lora: how the adapters were made.
        base: the name of the model that they belong to, which peft may look for.

    Raises:
        CheckpointError: no family of Hugging Face's computes what the model does, or one has several kernels
            in one matrix, of which peft knows one adapter.
    """
    family = write_model_config(model)["model_type"]
    found = dict(_tensors(family, params, model))
    modules = sorted({name.split(".lora_")[0].split(".")[-1] for name in found})
    settings = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "r": lora.rank,
        "lora_alpha": lora.alpha,
        "lora_dropout": 0.0,
        "use_dora": lora.kind == "dora",
        "target_modules": modules,
        "fan_in_fan_out": family == "gpt2",
        "bias": "none",
        "inference_mode": True,
    }
    write_tensors(found, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text(json.dumps(settings, indent=2), encoding="utf-8")
    return sum("lora_A" in name for name in found)


def _tensors(family: str, params: Tree, model: ModelConfig) -> Iterator[tuple[str, np.ndarray]]:
    for part in parts(family, model):
        kernels = [leaf.split("/") for leaf in part.leaves if leaf.startswith("blocks/")]
        layers = [params["blocks"][name] for _, name, leaf in kernels if leaf == "kernel"]
        layers = [layer for layer in layers if IN in layer]
        if not layers:
            continue
        if len(part.leaves) > 1:
            raise CheckpointError(
                f"{family} has {', '.join(part.leaves)} in one matrix ({part.name}), of which peft knows one "
                "adapter: export the merged model with --format huggingface"
            )
        (layer,), (at,), module = layers, part.at, _PREFIX + part.name.removesuffix(".weight")
        yield f"{module}.lora_A.weight", np.ascontiguousarray(np.asarray(layer[IN][at]).T)
        yield f"{module}.lora_B.weight", np.ascontiguousarray(np.asarray(layer[OUT][at]).T)
        if MAGNITUDE in layer:
            yield f"{module}.lora_magnitude_vector", np.asarray(layer[MAGNITUDE][at])
