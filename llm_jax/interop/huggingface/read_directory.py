"""A directory as Hugging Face's save_pretrained writes it: config.json, and weights in .safetensors files.

The safetensors library reads the tensors; what it leaves open is checked here: which files an index may name,
that each tensor has one home, and that its numbers are of a kind that a model has. Nothing is unpickled.
"""

import json
import re
from pathlib import Path
from typing import Any

import ml_dtypes  # noqa: F401 - makes bfloat16 known to numpy, as safetensors asks for it by name
import numpy as np
from safetensors import SafetensorError, safe_open

from llm_jax.base.errors import CheckpointError
from llm_jax.interop.other_kinds import why_no_config, why_no_weights, why_quantized
from llm_jax.interop.source import Source, quoted

_SINGLE = "model.safetensors"
_INDEX = "model.safetensors.index.json"
_SHARD = re.compile(r"[\w.-]{1,200}\.safetensors", re.ASCII)
_KINDS = ("F32", "F16", "BF16")
# What some files hold beside the parameters, of any type: masks, and the frequencies of positions.
_BUFFER = re.compile(r"(.+\.)?(attn\.(masked_)?bias|rotary_emb\w*\.\w+)")
_MAX_JSON_BYTES = 16 << 20
_MAX_TENSORS = 1 << 16
_MAX_DIMENSIONS = 8


def open_directory(path: Path) -> Source:
    """Return the model in a directory; its files are only looked into, each tensor is read when it is asked
    for.

    Raises:
        CheckpointError: a file is missing, damaged, or holds what no model of ours has.
    """
    try:
        return _open(path)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}") from None


def _open(path: Path) -> Source:
    if not path.is_dir():
        raise CheckpointError(f"{path} must be a directory with config.json and {_SINGLE}")
    if not is_there(path / "config.json"):
        raise CheckpointError(why_no_config(path))
    config = read_json(own_file(path, "config.json"))
    if quantized := why_quantized(config):
        raise CheckpointError(f"{path}: {quantized}")
    index = None if is_there(path / _SINGLE) else _weight_map(path)
    homes: dict[str, str] = {}
    shapes: dict[str, tuple[int, ...]] = {}
    shards: dict[str, safe_open] = {}
    for shard in [_SINGLE] if index is None else sorted(set(index.values())):
        shards[shard], found = open_shard(own_file(path, shard))
        if twice := sorted(found.keys() & homes.keys()):
            raise CheckpointError(
                f"{path}: tensor {quoted(twice[0])} must be in one shard, but is in {homes[twice[0]]} "
                f"and {shard}"
            )
        homes |= dict.fromkeys(found, shard)
        shapes |= {name: shape for name, shape in found.items() if not _BUFFER.fullmatch(name)}
    if index is not None:
        _require_agreement(path, index, homes)

    def read(name: str) -> np.ndarray:
        if name not in shapes:
            raise CheckpointError(f"{path} holds no tensor {quoted(name)}")
        return read_tensor(shards[homes[name]], name, path / homes[name])

    return Source(config, shapes, read, tokenizer={})


def own_file(folder: Path, name: str) -> Path:
    """Return the file of this name in the folder; where it links to is the user's business."""
    path = folder / name
    if path.is_symlink() and not path.exists():
        target = quoted(path.readlink())
        raise CheckpointError(f"{path} is a link to {target}, which is not there; fetch it again")
    if not path.is_file():
        raise CheckpointError(f"{path} must be a file")
    return path


def is_there(path: Path) -> bool:
    """Return whether there is such a file, or a link, which may lead nowhere."""
    return path.is_symlink() or path.exists()


def _weight_map(folder: Path) -> dict[str, str]:
    """Tensor -> shard, as the index says it."""
    path = folder / _INDEX
    if not is_there(path):
        raise CheckpointError(why_no_weights(folder, _SINGLE, f" or {_INDEX}"))
    names = read_json(own_file(folder, _INDEX)).get("weight_map")
    if not isinstance(names, dict) or not names:
        raise CheckpointError(f"{path} must hold an object weight_map that is not empty")
    for tensor, shard in names.items():
        if not isinstance(shard, str) or not _SHARD.fullmatch(shard):
            raise CheckpointError(
                f"{path} must name a .safetensors file beside it for {quoted(tensor)}, got {quoted(shard)}"
            )
    return names


def open_shard(path: Path) -> tuple[safe_open, dict[str, tuple[int, ...]]]:
    """Return an open .safetensors file, and the shapes of all its tensors; those of buffers may be of any
    type.

    Raises:
        CheckpointError: it is damaged, or holds no tensors, or such as no model of ours has.
    """
    _require_plain_header(path)
    try:
        shard = safe_open(path, framework="np")
        names = list(shard.keys())
        slices = {name: shard.get_slice(name) for name in names}
        kinds = {name: str(part.get_dtype()) for name, part in slices.items()}
        shapes = {name: tuple(part.get_shape()) for name, part in slices.items()}
    except (SafetensorError, ValueError) as error:
        raise CheckpointError(f"{path} is damaged: {quoted(error)}") from None
    if not names:
        raise CheckpointError(f"{path} must hold tensors, but has none")
    for name in names:
        if _BUFFER.fullmatch(name):
            continue
        if kinds[name] not in _KINDS:
            raise CheckpointError(
                f"{path}: tensor {quoted(name)} must be float32, float16 or bfloat16, got {kinds[name]}"
            )
        if len(shapes[name]) > _MAX_DIMENSIONS or 0 in shapes[name]:
            raise CheckpointError(
                f"{path}: tensor {quoted(name)} must have at most {_MAX_DIMENSIONS} dimensions, none of them "
                f"0, got {quoted(shapes[name])}"
            )
    return shard, shapes


def read_tensor(shard: safe_open, name: str, path: Path) -> np.ndarray:
    """Return one tensor of an open file; the path is for the message of the CheckpointError for a damaged
    one.
    """
    try:
        return shard.get_tensor(name)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} is damaged: {quoted(error)}") from None


def _require_plain_header(path: Path) -> None:
    """The library takes any length up to 100 MB, and of two tensors with one name the last."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > _MAX_JSON_BYTES:
            raise CheckpointError(
                f"{path} must have a header of at most {_MAX_JSON_BYTES:,} bytes, but says {length:,}"
            )
        header = _json_object(file.read(length), f"the header of {path}")
    if len(header) > _MAX_TENSORS:
        raise CheckpointError(f"{path} must hold at most {_MAX_TENSORS:,} tensors, got {len(header):,}")


def _require_agreement(folder: Path, index: dict[str, str], homes: dict[str, str]) -> None:
    for name, shard in index.items():
        if homes.get(name) != shard:
            raise CheckpointError(f"{folder}: {shard} must hold tensor {quoted(name)}, as {_INDEX} says")
    if extra := sorted(homes.keys() - index.keys()):
        raise CheckpointError(
            f"{folder}: {_INDEX} must name tensor {quoted(extra[0])}, which is in {homes[extra[0]]}"
        )


def read_json(path: Path) -> dict[str, Any]:
    """Return the object in a small JSON file in which no name stands twice.

    Raises:
        CheckpointError: it is something else.
    """
    if (size := path.stat().st_size) > _MAX_JSON_BYTES:
        raise CheckpointError(f"{path} must have at most {_MAX_JSON_BYTES:,} bytes, got {size:,}")
    return _json_object(path.read_bytes(), str(path))


def _json_object(raw: bytes, what: str) -> dict[str, Any]:
    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        entries = dict(pairs)
        if len(entries) < len(pairs):
            seen: set[str] = set()
            twice = next(name for name, _ in pairs if name in seen or seen.add(name))
            raise CheckpointError(f"{what} must have each name once, but {quoted(twice)} is there twice")
        return entries

    try:
        value = json.loads(raw, object_pairs_hook=once)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{what} must be JSON: {quoted(error)}") from None
    if not isinstance(value, dict):
        raise CheckpointError(f"{what} must be a JSON object, got {type(value).__name__}")
    return value
