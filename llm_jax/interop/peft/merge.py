"""LoRA adapters (Hu et al. 2021, arXiv:2106.09685) as the library peft writes them, merged into a model.

A directory has adapter_config.json and adapter_model.safetensors, which holds two factors, A [r, in] and
B [out, r], for each module that was adapted: its matrix W [out, in] becomes W + scale B A. Modules that were
trained whole (modules_to_save) are in the file as they are, and take the place of the model's.
"""

import dataclasses
import hashlib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from llm_jax.base.errors import CheckpointError
from llm_jax.config.model import ModelConfig
from llm_jax.interop.fields import Fields
from llm_jax.interop.huggingface.read_directory import is_there, open_shard, own_file, read_json, read_tensor
from llm_jax.interop.huggingface.tensor_names import Part, parts, require_fit
from llm_jax.interop.other_kinds import why_no_adapter, why_no_weights
from llm_jax.interop.peft.read_config import AdapterConfig, adapter_fields, read_adapter_config
from llm_jax.interop.source import Source, quoted

_CONFIG = "adapter_config.json"
_WEIGHTS = "adapter_model.safetensors"
_PREFIX = "base_model.model."
_LINEAR = ("lora_A.weight", "lora_B.weight")
_EMBEDDING = ("lora_embedding_A", "lora_embedding_B")
# The matrices of an adapted embedding and head, which peft stores along with the factors.
_BASE = "base_layer.weight"
_HEAD = "lm_head.weight"


class _Merge(NamedTuple):
    """What is done to one tensor, by the names of the adapter's tensors."""

    factors: tuple[str, str] | None  # A and B
    whole: str | None  # takes the place of the model's
    scale: float
    out_first: bool  # the matrix is [out, in]


def merge_adapter(
    source: Source, folder: Path, model: ModelConfig, ignored: Collection[str] = ()
) -> tuple[Source, ModelConfig]:
    """Return the same model, each of its tensors merged with the adapter's, in float32, when it is read.

    A head that was the embedding is a matrix of its own where the adapter changes one of them.

    Args:
        source: the model that the adapter was trained on.
        folder: the adapter's directory.
        model: what `families.read_model_config` made of the source's configuration.
        ignored: fields of the adapter's configuration that are passed over.

    Raises:
        CheckpointError: a file is missing or damaged, the configuration asks for more than factors, or a
            tensor is missing, left over, or of another shape.
    """
    try:
        return _merged(source, folder, model, ignored)
    except OSError as error:
        raise CheckpointError(f"{folder} cannot be read: {error.strerror}") from None


def adapter_facts(folder: Path) -> dict[str, str]:
    """Return what a checkpoint says of an adapter in it: its "name", and the "sha256" of its factors."""
    with (folder / _WEIGHTS).open("rb") as file:
        return {"name": folder.resolve().name, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}


def read_adapter_fields(folder: Path) -> Fields:
    """Return the fields of an adapter's configuration, without those that are used."""
    return adapter_fields(_config(folder))


def _config(folder: Path) -> dict[str, Any]:
    if not folder.is_dir():
        raise CheckpointError(f"{folder} must be a directory with {_CONFIG} and {_WEIGHTS}")
    if not is_there(folder / _CONFIG):
        raise CheckpointError(why_no_adapter(folder))
    return read_json(own_file(folder, _CONFIG))


def _merged(
    source: Source, folder: Path, model: ModelConfig, ignored: Collection[str]
) -> tuple[Source, ModelConfig]:
    config = read_adapter_config(_config(folder), ignored)
    path = folder / _WEIGHTS
    if not is_there(path):
        raise CheckpointError(why_no_weights(folder, _WEIGHTS))
    shard, shapes = open_shard(own_file(folder, _WEIGHTS))
    source, model = _untied(source, model, shapes)
    wanted = list(parts(source.config["model_type"], model))
    their_names = require_fit(wanted, source.shapes, model)
    merges = _merges(wanted, config, shapes, path)
    by_name = {their_names[name]: merge for name, merge in merges.items()}

    def trained(name: str) -> np.ndarray:
        tensor = read_tensor(shard, name, path).astype(np.float32, copy=False)
        if not np.isfinite(tensor).all():
            raise CheckpointError(f"{path}: {name} must hold finite numbers alone")
        return tensor

    def read(name: str) -> np.ndarray:
        if name not in by_name:
            return source.read(name)
        merge = by_name[name]
        whole = trained(merge.whole) if merge.whole else source.read(name)
        if merge.factors is None:
            return whole
        a, b = map(trained, merge.factors)
        with np.errstate(
            over="ignore", invalid="ignore"
        ):  # who asked for a tensor refuses what is not finite
            matrix = b @ a if merge.out_first else a.T @ b.T
            matrix *= merge.scale
            matrix += whole.astype(np.float32, copy=False)
        return matrix

    return source._replace(read=read), model


def _untied(
    source: Source, model: ModelConfig, shapes: Mapping[str, tuple[int, ...]]
) -> tuple[Source, ModelConfig]:
    """The same model with a head of its own, if the adapter changes it or the embedding that it was."""
    if not model.tied_head:
        return source, model
    wanted = list(parts(source.config["model_type"], model))
    table = next(part.name for part in wanted if part.leaves == ("token_embedding/embedding",))
    touched = tuple(f"{_PREFIX}{name.removesuffix('weight')}" for name in (table, _HEAD))
    if not any(name.startswith(touched) for name in shapes):
        return source, model
    name = require_fit(wanted, source.shapes, model)[table]

    def read(wanted: str) -> np.ndarray:
        return source.read(name if wanted == _HEAD else wanted)

    grown = source.shapes | {_HEAD: source.shapes[name]}
    return source._replace(shapes=grown, read=read), dataclasses.replace(model, tied_head=False)


def _merges(
    wanted: list[Part], config: AdapterConfig, shapes: Mapping[str, tuple[int, ...]], path: Path
) -> dict[str, _Merge]:
    """By the name of each tensor that the adapter changes; every tensor of the adapter does."""
    merges: dict[str, _Merge] = {}
    left = set(shapes)
    for part in wanted:
        module = part.name.removesuffix(".weight")
        sizes: dict[str, tuple[int, ...]] = {}
        embeds = part.leaves[0].endswith("/embedding")
        a, b = (f"{_PREFIX}{module}.{factor}" for factor in (_EMBEDDING if embeds else _LINEAR))
        factors = (a, b) if len(part.shape) == 2 and {a, b} & left else None
        if factors:
            inputs, outputs = part.shape[::-1] if part.out_first else part.shape
            rank = config.rank(module)
            sizes = {a: (rank, inputs), b: (outputs, rank)}
        names = [f"{_PREFIX}{part.name}", f"{_PREFIX}{module}.{_BASE}"]
        whole = next((name for name in names if name in left), None)
        if whole:
            sizes[whole] = part.shape
            if embeds and shapes[whole][0] != part.shape[0]:
                raise CheckpointError(
                    f"{path} must be for the model's {part.shape[0]:,} tokens, but {whole} has "
                    f"{shapes[whole][0]:,} rows; give the model with the tokens that were added to it"
                )
        _require_sizes(sizes, shapes, module, path)
        left -= sizes.keys()
        if sizes:
            scale = config.scale(module) if factors else 1.0
            merges[part.name] = _Merge(factors, whole, scale, part.out_first)
    if left:
        raise CheckpointError(
            f"{path} must hold tensors for modules of this model alone, but has {quoted(min(left))}"
        )
    held = [name.rpartition(".")[0] for name, merge in merges.items() if merge.whole]
    if absent := [module for module in config.saved if not any(name.endswith(module) for name in held)]:
        raise CheckpointError(f"{path} must hold {quoted(absent[0])}, as modules_to_save says")
    return merges


def _require_sizes(
    sizes: Mapping[str, tuple[int, ...]], shapes: Mapping[str, tuple[int, ...]], module: str, path: Path
) -> None:
    for name, shape in sizes.items():
        if name not in shapes:
            raise CheckpointError(f"{path} must hold {name}, the other factor for {module}")
        if shapes[name] != shape:
            raise CheckpointError(f"{path}: {name} must have shape {shape}, got {quoted(shapes[name])}")
