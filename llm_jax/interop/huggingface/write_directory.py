"""A model as the directory that transformers, vLLM and others load, written tensor by tensor."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from llm_jax.base.tree import Tree
from llm_jax.config.model import ModelConfig
from llm_jax.interop.huggingface.tensor_names import export_tensors, parts
from llm_jax.interop.pytorch.state_dict import write_tensors

_SHARD = 2 * 10**9  # bytes, so that one at a time fits beside the model


def write_directory(
    folder: Path, config_json: dict[str, Any], config: ModelConfig, params: Tree, shard_bytes: int = _SHARD
) -> None:
    """Write config.json and the tensors, in shards with an index where one file would be too large.

    Args:
        folder: an empty directory.
        config_json: of `config_json.write_model_config`.
        config: the decoder's shape.
        params: its parameters.
        shard_bytes: the size of a file, at least that of its first tensor.
    """
    family = config_json["model_type"]
    shards = list(_shards(family, config, shard_bytes))
    tensors = export_tensors(family, config, params)
    weight_map: dict[str, str] = {}
    for number, names in enumerate(shards, start=1):
        of_many = f"-{number:05}-of-{len(shards):05}" if len(shards) > 1 else ""
        file = f"model{of_many}.safetensors"
        write_tensors(dict(next(tensors) for _ in names), folder / file)
        # The library makes files that only their owner may read.
        (folder / file).chmod(folder.stat().st_mode & 0o666)
        weight_map |= dict.fromkeys(names, file)
    if len(shards) > 1:
        total = sum(_bytes(part.shape, config) for part in parts(family, config))
        index = {"metadata": {"total_size": total}, "weight_map": weight_map}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2), encoding="utf-8")
    (folder / "config.json").write_text(json.dumps(config_json, indent=2), encoding="utf-8")


def _shards(family: str, config: ModelConfig, shard_bytes: int) -> Iterator[list[str]]:
    names: list[str] = []
    size = 0
    for part in parts(family, config):
        if names and size + _bytes(part.shape, config) > shard_bytes:
            yield names
            names, size = [], 0
        names.append(part.name)
        size += _bytes(part.shape, config)
    yield names


def _bytes(shape: tuple[int, ...], config: ModelConfig) -> int:
    return int(np.prod(shape)) * np.dtype(config.param_dtype).itemsize
