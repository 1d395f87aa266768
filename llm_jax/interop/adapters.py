"""LoRA adapters (Hu et al. 2021, arXiv:2106.09685) as the library peft writes them, merged into a model.

A directory has adapter_config.json and adapter_model.safetensors, which holds two factors, A [r, in] and
B [out, r], for each module that was adapted: its matrix W [out, in] becomes W + scale B A.
"""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from llm_jax.errors import CheckpointError
from llm_jax.interop.adapter_config import AdapterConfig, read_adapter_config
from llm_jax.interop.huggingface import Part, parts, require_fit
from llm_jax.interop.huggingface_directory import (
    open_shard,
    own_file,
    read_json,
    read_tensor,
    why_no_weights,
)
from llm_jax.interop.sources import Source, quoted
from llm_jax.model_config import ModelConfig

_CONFIG = "adapter_config.json"
_WEIGHTS = "adapter_model.safetensors"
_PREFIX = "base_model.model."
_LINEAR = ("lora_A.weight", "lora_B.weight")
_EMBEDDING = ("lora_embedding_A", "lora_embedding_B")
# The matrices of an adapted embedding and head, which peft stores along with the factors.
_BASE = "base_layer.weight"


class _Merge(NamedTuple):
    """What is done to one matrix, by the names of the adapter's tensors."""

    a: str
    b: str
    base: str | None  # a matrix that takes the place of the model's
    scale: float
    out_first: bool  # the matrix is [out, in]


def merge_adapter(source: Source, folder: Path, model: ModelConfig) -> Source:
    """The same model, each of its tensors merged with the adapter's factors, in float32, when it is read.

    Args:
        source: the model that the adapter was trained on.
        folder: the adapter's directory.
        model: what `families.read_model_config` made of the source's configuration.

    Raises:
        CheckpointError: a file is missing or damaged, the configuration asks for more than factors, or a
            tensor is missing, left over, or of another shape.
    """
    try:
        return _merged(source, folder, model)
    except OSError as error:
        raise CheckpointError(f"{folder} cannot be read: {error.strerror}") from None


def adapter_digest(folder: Path) -> str:
    """SHA-256, in hexadecimal digits, of the file with the factors of an adapter that was merged."""
    with (folder / _WEIGHTS).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _merged(source: Source, folder: Path, model: ModelConfig) -> Source:
    if not folder.is_dir():
        raise CheckpointError(f"{folder} must be a directory with {_CONFIG} and {_WEIGHTS}")
    config = read_adapter_config(read_json(own_file(folder, _CONFIG)))
    path = folder / _WEIGHTS
    if not path.exists() and not path.is_symlink():
        raise CheckpointError(why_no_weights(folder, _WEIGHTS))
    shard, shapes = open_shard(own_file(folder, _WEIGHTS))
    wanted = list(parts(source.config["model_type"], model))
    their_names = require_fit(wanted, source.shapes, model)
    merges = _merges(wanted, config, shapes, path, model)
    by_name = {their_names[name]: merge for name, merge in merges.items()}

    def factor(name: str) -> np.ndarray:
        tensor = read_tensor(shard, name, path).astype(np.float32, copy=False)
        if not np.isfinite(tensor).all():
            raise CheckpointError(f"{path}: {name} must hold finite numbers alone")
        return tensor

    def read(name: str) -> np.ndarray:
        if name not in by_name:
            return source.read(name)
        merge = by_name[name]
        a, b = factor(merge.a), factor(merge.b)
        base = factor(merge.base) if merge.base else source.read(name)
        with np.errstate(
            over="ignore", invalid="ignore"
        ):  # who asked for a tensor refuses what is not finite
            matrix = b @ a if merge.out_first else a.T @ b.T
            matrix *= merge.scale
            matrix += base.astype(np.float32, copy=False)
        return matrix

    return source._replace(read=read)


def _merges(
    wanted: list[Part],
    config: AdapterConfig,
    shapes: Mapping[str, tuple[int, ...]],
    path: Path,
    model: ModelConfig,
) -> dict[str, _Merge]:
    """By the name of each matrix that has factors; every tensor of the adapter is one of them."""
    merges: dict[str, _Merge] = {}
    left = set(shapes)
    for part in wanted:
        module = part.name.removesuffix(".weight")
        embeds = part.leaves[0].endswith("/embedding")
        a, b = (f"{_PREFIX}{module}.{factor}" for factor in (_EMBEDDING if embeds else _LINEAR))
        if len(part.shape) != 2 or not {a, b} & left:
            continue
        inputs, outputs = part.shape[::-1] if part.out_first else part.shape
        rank = config.rank(module)
        sizes = {a: (rank, inputs), b: (outputs, rank)}
        base = f"{_PREFIX}{module}.{_BASE}"
        if base in left:
            sizes[base] = part.shape
        for name, shape in sizes.items():
            if name not in left:
                raise CheckpointError(f"{path} must hold {name}, the other factor for {module}")
            if shapes[name] != shape:
                raise CheckpointError(f"{path}: {name} must have shape {shape}, got {quoted(shapes[name])}")
        if model.tied_head and part.leaves == ("token_embedding/embedding",):
            raise CheckpointError(
                f"{path} must leave {module} as it is, as the head is the same matrix, but has {a}"
            )
        left -= sizes.keys()
        scale = config.scale(module)
        merges[part.name] = _Merge(a, b, base if base in sizes else None, scale, part.out_first)
    if left:
        raise CheckpointError(
            f"{path} must hold factors for matrices of this model alone, but has {quoted(min(left))}"
        )
    return merges
