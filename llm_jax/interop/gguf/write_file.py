"""A model as a GGUF file, which llama.cpp runs, written tensor by tensor.

Matrices are stored in the type that is asked for; norms, biases and positions stay float32, as llama.cpp's
own converter leaves them.
"""

from collections.abc import Callable, Iterator, Mapping
from math import prod
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from llm_jax.base.errors import CheckpointError
from llm_jax.config.model import ModelConfig
from llm_jax.interop.gguf.header import ALIGNMENT, Place, header_bytes
from llm_jax.interop.gguf.tensor_names import Origin, origins, redo, undo
from llm_jax.interop.gguf.types import BF16, F16, F32, Q8_0, encode, encodings
from llm_jax.interop.gguf.write_config import write_settings
from llm_jax.interop.huggingface.tensor_names import parts

# Our word -> GGML's type, and llama.cpp's number of a file whose matrices have it.
_KINDS = {"float32": (F32, 0), "float16": (F16, 1), "bfloat16": (BF16, 32), "q8_0": (Q8_0, 7)}
_ENCODING = 2  # of blocks: the version that Q8_0 has had since 2023
_Tensors = Iterator[tuple[str, np.ndarray]]


class Stored(NamedTuple):
    """A tensor as the file gets it."""

    origin: Origin
    kind: int  # GGML's number of a type


class Plan(NamedTuple):
    """What a file will hold."""

    settings: dict[str, Any]
    factors: dict[str, np.ndarray]  # tensors that are settings, by llama.cpp's names
    stored: dict[str, Stored]  # by Hugging Face's names, in the order of `export_tensors`

    def without_blocks(self) -> list[str]:
        """Return llama.cpp's names of matrices that are float16, as their rows are no multiple of Q8_0's
        blocks.
        """
        if self.settings["general.file_type"] != _KINDS["q8_0"][1]:
            return []
        return [each.origin.name for each in self.stored.values() if each.kind == F16]


def plan(config_json: dict[str, Any], config: ModelConfig, dtype: str) -> Plan:
    """Return how the model is stored.

    Args:
        config_json: of `config_json.write_model_config`.
        config: the decoder's shape.
        dtype: of matrices: float32, float16, bfloat16 or q8_0.

    Raises:
        CheckpointError: llama.cpp has no architecture that computes what this model does.
    """
    arch, settings, factors = write_settings(config_json)
    kind, file_type = _KINDS[dtype]
    table = origins(arch, config_json)
    stored = {
        part.name: Stored(table[part.name], _kind(table[part.name], kind))
        for part in parts(config_json["model_type"], config)
    }
    general = {"general.file_type": file_type, "general.quantization_version": _ENCODING}
    return Plan(settings | general, factors, stored)


def write_gguf(
    path: Path,
    made: Plan,
    tokenizer: Mapping[str, Any],
    tensors: _Tensors,
    progress: Callable[[_Tensors, int], _Tensors] = lambda tensors, _: tensors,
) -> None:
    """Write the file, with one tensor at a time in memory.

    Args:
        path: the file.
        made: of `plan`.
        tokenizer: settings that begin with "tokenizer.", and general ones.
        tensors: of `huggingface.export_tensors`.
        progress: shows how far it is: given the tensors and their number, passes them on.

    Raises:
        CheckpointError: a number is too large for the type.
        UserError: the package gguf is missing.
    """
    places: dict[str, Place] = {}
    end = 0
    known = encodings({F32, *(each.kind for each in made.stored.values())})
    shapes = {name: (factors.shape, F32) for name, factors in made.factors.items()}
    shapes |= {each.origin.name: (each.origin.stored_shape, each.kind) for each in made.stored.values()}
    for name, (shape, kind) in shapes.items():
        places[name] = Place(shape, kind, end)
        end += _padded(prod(shape) // known[kind].block * known[kind].block_bytes)
    with path.open("wb") as file:
        file.write(header_bytes({**made.settings, **tokenizer}, places))
        for factors in made.factors.values():
            _put(file, encode(factors, F32))
        for name, tensor in progress(tensors, len(made.stored)):
            _put(file, _encoded(tensor, made.stored[name]))


def rounded(tensor: np.ndarray, stored: Stored) -> np.ndarray:
    """Return Hugging Face's tensor as it comes back: float32 numbers that the type has."""
    decode = encodings({stored.kind})[stored.kind].decode
    return undo(decode(_encoded(tensor, stored)).reshape(stored.origin.stored_shape), stored.origin)


def _encoded(tensor: np.ndarray, stored: Stored) -> np.ndarray:
    """The tensor's bytes in the file, in rows."""
    raw = encode(redo(tensor, stored.origin), stored.kind)
    if (
        stored.kind in (F16, Q8_0)
        and not np.isfinite(encodings({stored.kind})[stored.kind].decode(raw)).all()
    ):
        raise CheckpointError(
            f"{stored.origin.name} must hold numbers that float16 has, at most 65,504; "
            "export it as float32 or bfloat16"
        )
    return raw


def _kind(origin: Origin, kind: int) -> int:
    if len(origin.shape) == 1 or origin.name == "position_embd.weight":
        return F32
    if kind == Q8_0 and origin.stored_shape[-1] % encodings({Q8_0})[Q8_0].block:
        return F16
    return kind


def _padded(length: int) -> int:
    return -(-length // ALIGNMENT) * ALIGNMENT


def _put(file: BinaryIO, raw: np.ndarray) -> None:
    file.write(raw.data)
    file.write(bytes(_padded(raw.nbytes) - raw.nbytes))
