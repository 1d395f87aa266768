"""llama.cpp's GGUF files: weights of Llama, Qwen, Gemma and GPT-2, dequantised to Hugging Face's one by one.

`gguf_header` reads where the tensors lie, `gguf_config` and `gguf_names` say what they are, `gguf_types`
turns their blocks into numbers. `gguf_writing` makes such files.
"""

from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import NamedTuple

import numpy as np

from llm_jax.base.errors import CheckpointError
from llm_jax.interop.gguf.header import Header, Place, read_header
from llm_jax.interop.gguf.read_config import architecture, llama3_scaling, read_config
from llm_jax.interop.gguf.tensor_names import Origin, origins, undo
from llm_jax.interop.gguf.types import Encoding, encodings
from llm_jax.interop.source import Source, quoted

_FACTORS = "rope_freqs.weight"
_PART_ELEMENTS = 1 << 22  # dequantised at once: less than this and a row


class _Stored(NamedTuple):
    """A tensor whose bytes are known to lie in the file."""

    place: Place
    encoding: Encoding

    def num_bytes(self) -> int:
        return prod(self.place.shape) // self.encoding.block * self.encoding.block_bytes


def open_gguf(path: Path) -> Source:
    """Return the model in a GGUF file; each tensor is read, as float32, when it is asked for.

    Raises:
        CheckpointError: the file is damaged, or of an architecture that is not read here.
        UserError: the package gguf is missing.
    """
    try:
        if not path.is_file():
            raise CheckpointError("must be a file that exists")
        with path.open("rb") as file:
            size = path.stat().st_size
            return _source(path, read_header(file, size), size)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from None
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}") from None


def _source(path: Path, header: Header, size: int) -> Source:
    stored = _stored(header, size)
    config = read_config(header.settings, {name: place.shape for name, place in header.places.items()})
    if _FACTORS in stored and config["model_type"] == "llama":
        config["rope_scaling"] = llama3_scaling(_read(path, _FACTORS, stored.pop(_FACTORS)), config)
    table = origins(architecture(header.settings), config)
    _require_all(table, stored)

    def read(name: str) -> np.ndarray:
        if name not in table:
            raise CheckpointError(f"{path} holds no tensor {quoted(name)}")
        origin = table[name]
        try:
            return undo(_read(path, origin.name, stored[origin.name]), origin)
        except CheckpointError as error:
            raise CheckpointError(f"{path}: {error}") from None
        except OSError as error:
            raise CheckpointError(f"{path} cannot be read: {error.strerror}") from None

    tokenizer = {key: value for key, value in header.settings.items() if key.startswith("tokenizer.")}
    return Source(config, {name: origin.shape for name, origin in table.items()}, read, tokenizer)


def _stored(header: Header, size: int) -> dict[str, _Stored]:
    """All tensors, each in a type that can be decoded, inside the file and beside the others."""
    known = encodings({place.kind for place in header.places.values()})
    stored: dict[str, _Stored] = {}
    end, before = 0, ""
    for name, place in sorted(header.places.items(), key=lambda item: item[1].offset):
        if place.kind not in known:
            raise CheckpointError(
                f"tensor {quoted(name)} must be of a type that gguf decodes, got GGML's type {place.kind}"
            )
        tensor = _Stored(place, known[place.kind])
        if place.shape[-1] % tensor.encoding.block:
            raise CheckpointError(
                f"rows of tensor {quoted(name)} must be a multiple of {tensor.encoding.block} long, "
                f"got {place.shape[-1]:,}"
            )
        if place.offset % header.alignment:
            raise CheckpointError(
                f"tensor {quoted(name)} must be at a multiple of {header.alignment:,}, got {place.offset:,}"
            )
        if place.offset < end:
            raise CheckpointError(f"tensors {quoted(before)} and {quoted(name)} must not overlap")
        end, before = place.offset + tensor.num_bytes(), name
        if end > size:
            raise CheckpointError(
                f"tensor {quoted(name)} must lie in the file's {size:,} bytes, but ends at {end:,}"
            )
        stored[name] = tensor
    return stored


def _require_all(table: Mapping[str, Origin], stored: Mapping[str, _Stored]) -> None:
    for origin in table.values():
        if origin.name not in stored:
            raise CheckpointError(f"tensor {origin.name} is missing")
        if (shape := stored[origin.name].place.shape) != origin.stored_shape:
            raise CheckpointError(f"tensor {origin.name} must have shape {origin.stored_shape}, got {shape}")
    if extra := sorted(stored.keys() - {origin.name for origin in table.values()}):
        raise CheckpointError(f"tensor {quoted(extra[0])} has no place in this architecture")


def _read(path: Path, name: str, tensor: _Stored) -> np.ndarray:
    """One tensor as the file has it, decoded a few rows at a time, so that little more than the result is
    held.
    """
    shape, encoding = tensor.place.shape, tensor.encoding
    out = np.empty((prod(shape[:-1]), shape[-1]), np.float32)
    row_bytes = shape[-1] // encoding.block * encoding.block_bytes
    step = -(-_PART_ELEMENTS // shape[-1])
    with path.open("rb") as file:
        file.seek(tensor.place.offset)
        for first in range(0, len(out), step):
            rows = min(step, len(out) - first)
            raw = file.read(rows * row_bytes)
            if len(raw) < rows * row_bytes:
                raise CheckpointError(f"tensor {quoted(name)} must lie in the file, which became shorter")
            out[first : first + rows] = encoding.decode(np.frombuffer(raw, np.uint8).reshape(rows, row_bytes))
    return out.reshape(shape)
