"""The header of a GGUF file: its settings, and where its tensors lie. No count or length that is read in it
is believed before it is compared with the bytes that are there.

Layout (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md), little-endian: magic, version, number of
tensors, number of settings; the settings; for each tensor its name, shape, type and offset; padding; data.
"""

from collections.abc import Mapping
from math import prod
from struct import pack
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from llm_jax.base.errors import CheckpointError
from llm_jax.interop.source import quoted

ALIGNMENT = 32  # of tensors, where a file does not say it
_VERSION = 3
_MAX_HEADER_BYTES = 32 << 20
_MAX_ENTRIES = 1 << 16
_MAX_DIMENSIONS = 4
_MAX_ALIGNMENT = 1 << 16
_BOOL, _STRING, _ARRAY = 7, 8, 9
_SCALARS = {
    0: "u1",
    1: "i1",
    2: "<u2",
    3: "<i2",
    4: "<u4",
    5: "<i4",
    6: "<f4",
    _BOOL: "u1",
    10: "<u8",
    11: "<i8",
    12: "<f8",
}
# The fewest bytes that a setting (length of its name, type, value), a tensor (length of its name, number of
# dimensions, one of them, type, offset) and a string (its length) can take.
_SETTING_BYTES, _TENSOR_BYTES, _STRING_BYTES = 13, 32, 8


class Place(NamedTuple):
    """A tensor as the header describes it."""

    shape: tuple[int, ...]  # the last dimension is contiguous, as in numpy; the file has them reversed
    kind: int  # GGML's number of a type
    offset: int  # from the file's beginning


class Header(NamedTuple):
    """Everything before the data. Arrays of numbers are numpy's, arrays of strings are lists."""

    settings: dict[str, Any]
    places: dict[str, Place]
    alignment: int


class _Bytes(NamedTuple):
    """The part of a file that a header may take."""

    file: BinaryIO
    end: int

    def left(self) -> int:
        return self.end - self.file.tell()

    def take(self, count: int, what: str) -> bytes:
        if count > self.left():
            raise CheckpointError(
                f"{what} must lie in the header, but takes {count:,} bytes of {self.left():,} that are left"
            )
        return self.file.read(count)

    def whole(self, width: int, what: str) -> int:
        return int.from_bytes(self.take(width, what), "little")

    def many(self, least: int, what: str) -> int:
        """Return a number of things that take at least so many bytes each."""
        number = self.whole(8, what)
        if number * least > self.left():
            raise CheckpointError(
                f"{what} ({number:,}) must fit into the {self.left():,} bytes of the header that are left"
            )
        return number

    def string(self, what: str) -> str:
        return self.strings(1, what)[0]

    def strings(self, count: int, what: str) -> list[str]:
        """Return a tokenizer has hundreds of thousands, so that each is read with few calls."""
        found, left, read = [], self.left(), self.file.read
        for _ in range(count):
            length = int.from_bytes(read(8), "little")
            left -= 8 + length
            if left < 0:
                raise CheckpointError(
                    f"{what} must lie in the header, but has {length:,} bytes and ends {-left:,} behind it"
                )
            raw = read(length)
            try:
                found.append(raw.decode())
            except UnicodeDecodeError:
                raise CheckpointError(f"{what} must be UTF-8, got {quoted(raw[:20])}") from None
        return found


def read_header(file: BinaryIO, size: int) -> Header:
    """Return the header of a file of so many bytes, read from its beginning on.

    Raises:
        CheckpointError: it is cut, lies about a length, or is not of GGUF's version 2 or 3.
    """
    data = _Bytes(file, min(size, _MAX_HEADER_BYTES))
    magic, version = data.take(4, "GGUF's magic"), data.take(4, "GGUF's version")
    if magic != b"GGUF":
        raise CheckpointError(f"must begin with GGUF, got {quoted(magic)}")
    if version[:2] == b"\0\0" and any(version):
        raise CheckpointError("must be little-endian, got a big-endian file; convert it anew")
    if (number := int.from_bytes(version, "little")) not in (2, 3):
        raise CheckpointError(f"must be of GGUF's version 2 or 3, got {number}; convert it anew")
    num_tensors = data.many(_TENSOR_BYTES, "the number of tensors")
    num_settings = data.many(_SETTING_BYTES, "the number of settings")
    if max(num_tensors, num_settings) > _MAX_ENTRIES:
        raise CheckpointError(
            f"must have at most {_MAX_ENTRIES:,} tensors and as many settings, got {num_tensors:,} and "
            f"{num_settings:,}"
        )
    settings: dict[str, Any] = {}
    for _ in range(num_settings):
        key = data.string("a setting's name")
        if key in settings:
            raise CheckpointError(f"setting {quoted(key)} must be there once, but is there twice")
        settings[key] = _value(data, data.whole(4, "a setting's type"), f"setting {quoted(key)}")
    places: dict[str, Place] = {}
    for _ in range(num_tensors):
        name = data.string("a tensor's name")
        if name in places:
            raise CheckpointError(f"tensor {quoted(name)} must be there once, but is there twice")
        places[name] = _place(data, f"tensor {quoted(name)}")
    alignment = _alignment(settings)
    start = -(-file.tell() // alignment) * alignment
    return Header(
        settings,
        {name: place._replace(offset=start + place.offset) for name, place in places.items()},
        alignment,
    )


def _value(data: _Bytes, kind: int, what: str) -> Any:
    if kind == _STRING:
        return data.string(what)
    if kind == _ARRAY:
        return _array(data, what)
    value = _numbers(data, kind, 1, what)[0]
    # 1e-5 comes as the float32 nearest to it; its shortest decimal is what the setting was before.
    return float(str(value)) if value.dtype == np.float32 else value.item()


def _array(data: _Bytes, what: str) -> list[str] | np.ndarray:
    kind = data.whole(4, what)
    if kind != _STRING and kind not in _SCALARS:
        raise CheckpointError(f"{what} must be an array of numbers or strings, got one of type {kind}")
    least = _STRING_BYTES if kind == _STRING else np.dtype(_SCALARS[kind]).itemsize
    count = data.many(least, f"the length of {what}")
    if kind == _STRING:
        return data.strings(count, what)
    return _numbers(data, kind, count, what)


def _numbers(data: _Bytes, kind: int, count: int, what: str) -> np.ndarray:
    if kind not in _SCALARS:
        raise CheckpointError(f"{what} must have a type from 0 to 12, got {kind}")
    dtype = np.dtype(_SCALARS[kind])
    numbers = np.frombuffer(data.take(count * dtype.itemsize, what), dtype)
    if kind == _BOOL:
        if (numbers > 1).any():
            raise CheckpointError(f"{what} must be true or false (1 or 0), got {numbers.max()}")
        return numbers.astype(bool)
    return numbers


def _place(data: _Bytes, what: str) -> Place:
    num_dimensions = data.whole(4, what)
    if not 1 <= num_dimensions <= _MAX_DIMENSIONS:
        raise CheckpointError(f"{what} must have 1 to {_MAX_DIMENSIONS} dimensions, got {num_dimensions:,}")
    shape = tuple(data.whole(8, what) for _ in range(num_dimensions))[::-1]
    if not 0 < prod(shape) < 1 << 63:
        raise CheckpointError(f"{what} must have from 1 to 2^63 - 1 elements, got shape {shape}")
    return Place(shape, kind=data.whole(4, what), offset=data.whole(8, what))


def _alignment(settings: dict[str, Any]) -> int:
    alignment = settings.get("general.alignment", ALIGNMENT)
    power = type(alignment) is int and alignment > 0 and not alignment & (alignment - 1)
    if not power or alignment > _MAX_ALIGNMENT:
        raise CheckpointError(
            f"general.alignment must be a power of two up to {_MAX_ALIGNMENT:,}, got {quoted(alignment)}"
        )
    return alignment


def header_bytes(settings: Mapping[str, Any], places: Mapping[str, Place]) -> bytes:
    """Return what `read_header` reads, up to where the data begins.

    gguf's own writer has no empty arrays, which a tokenizer without merges needs.

    Args:
        settings: values as `Header` has them; arrays of numbers are int32 or float32.
        places: offsets from where the data begins, multiples of `ALIGNMENT`.
    """
    out = bytearray(b"GGUF" + pack("<IQQ", _VERSION, len(places), len(settings)))
    for key, value in settings.items():
        out += _string(key) + _packed(value)
    for name, place in places.items():
        shape = place.shape[::-1]
        out += _string(name) + pack(f"<I{len(shape)}QIQ", len(shape), *shape, place.kind, place.offset)
    return bytes(out) + bytes(-len(out) % ALIGNMENT)


def _packed(value: Any) -> bytes:
    """A setting's type and value."""
    if isinstance(value, bool):
        return pack("<I?", _BOOL, value)
    if isinstance(value, int):
        return pack("<II", 4, value)
    if isinstance(value, float):
        return pack("<If", 6, value)
    if isinstance(value, str):
        return pack("<I", _STRING) + _string(value)
    if isinstance(value, np.ndarray):
        kind = next(kind for kind in (5, 6) if value.dtype == _SCALARS[kind])
        return pack("<IIQ", _ARRAY, kind, len(value)) + value.tobytes()
    return pack("<IIQ", _ARRAY, _STRING, len(value)) + b"".join(map(_string, value))


def _string(text: str) -> bytes:
    raw = text.encode()
    return pack("<Q", len(raw)) + raw
