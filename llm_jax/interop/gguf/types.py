"""GGML's types of numbers, by which a GGUF file stores a tensor: llama.cpp's own package gguf decodes and
encodes them.
"""

from collections.abc import Callable
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from llm_jax.base.errors import UserError

# GGML's numbers of the types that are written here.
F32, F16, Q8_0, BF16 = 0, 1, 8, 30


class Encoding(NamedTuple):
    """How a type lays numbers out: in blocks of so many, each of so many bytes."""

    block: int
    block_bytes: int
    decode: Callable[[np.ndarray], np.ndarray]  # rows of bytes, uint8, to rows of float32


def encodings(kinds: set[int]) -> dict[int, Encoding]:
    """Return those types that gguf decodes, of the given ones.

    Raises:
        UserError: the package gguf is missing.
    """
    constants, quants = _package()
    found = {}
    for kind in kinds & {int(kind) for kind in constants.GGML_QUANT_SIZES}:
        block, block_bytes = constants.GGML_QUANT_SIZES[constants.GGMLQuantizationType(kind)]

        def decode(raw: np.ndarray, kind: Any = constants.GGMLQuantizationType(kind)) -> np.ndarray:
            with np.errstate(all="ignore"):  # Damaged scales give infinities, which are whoever reads them's.
                return quants.dequantize(raw, kind)

        try:
            decode(np.zeros((1, block_bytes), np.uint8))
        except RuntimeError:  # gguf's way to say that it does not decode this type
            continue
        found[kind] = Encoding(block, block_bytes, decode)
    return found


def encode(tensor: np.ndarray, kind: int) -> np.ndarray:
    """Return a tensor's numbers in this type: rows of bytes, uint8. Numbers that are too large become
    infinite.

    Raises:
        UserError: the package gguf is missing.
    """
    constants, quants = _package()
    rows = np.ascontiguousarray(tensor, np.float32).reshape(-1, tensor.shape[-1])
    with np.errstate(all="ignore"):
        return np.ascontiguousarray(quants.quantize(rows, constants.GGMLQuantizationType(kind))).view(
            np.uint8
        )


def _package() -> tuple[ModuleType, ModuleType]:
    try:
        from gguf import constants, quants  # pyright: ignore[reportMissingImports] - optional
    except ImportError:
        raise UserError('GGUF files need the package gguf: pip install "llm-jax[gguf]"') from None
    return constants, quants
