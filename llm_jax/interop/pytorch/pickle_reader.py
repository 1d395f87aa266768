"""A reader of torch's `.pt` files that executes nothing: it knows tensors, dicts and numbers, and refuses
everything else.

A `.pt` file is a zip of `<name>/data.pkl`, a pickle that says how tensors lie in `<name>/data/<key>`, the raw
storages. The pickle machine is Python's own, and locked in: the only names it may look up are stand-ins
defined here, which hold values and compute nothing.
"""

import io
import pickle
import zipfile
from collections import OrderedDict
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from llm_jax.base.errors import CheckpointError

MAX_PICKLE_BYTES = 64 << 20
MAX_STORAGE_BYTES = 64 << 30
_DTYPES = {
    "DoubleStorage": "<f8",
    "FloatStorage": "<f4",
    "HalfStorage": "<f2",
    "LongStorage": "<i8",
    "IntStorage": "<i4",
    "ShortStorage": "<i2",
    "CharStorage": "|i1",
    "ByteStorage": "|u1",
    "BoolStorage": "|b1",
}


class _StorageType(NamedTuple):
    dtype: str


class _Storage(NamedTuple):
    key: str
    dtype: str
    length: int  # elements


class _TensorPlan(NamedTuple):
    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


def read_state_dict(path: Path) -> dict[str, np.ndarray]:
    """Return the tensors of a torch state dict, by name.

    Raises:
        CheckpointError: the file is not such a state dict, is damaged, or asks for anything but tensors.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return _read(archive)
    except zipfile.BadZipFile:
        raise CheckpointError(
            f"{path} must be a zip as torch.save has written since 1.6; "
            "save it anew with torch, or as .safetensors"
        ) from None
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from None
    except Exception as error:  # noqa: BLE001 - hostile bytes make the pickle machine raise anything
        raise CheckpointError(f"{path} is damaged: {type(error).__name__}: {error}") from None


def _read(archive: zipfile.ZipFile) -> dict[str, np.ndarray]:
    names = archive.namelist()
    pickles = [name for name in names if name.count("/") == 1 and name.endswith("/data.pkl")]
    if len(pickles) != 1 or len(set(names)) != len(names):
        raise CheckpointError("must hold exactly one data.pkl, and no name twice")
    root = pickles[0].removesuffix("data.pkl")
    if root + "byteorder" in names and _member(archive, root + "byteorder", 16) != b"little":
        raise CheckpointError("must be little-endian")
    machine = _Unpickler(io.BytesIO(_member(archive, pickles[0], MAX_PICKLE_BYTES)))
    plans = machine.load()
    if not isinstance(plans, dict) or not all(isinstance(name, str) for name in plans):
        raise CheckpointError(f"must be a dict of tensors, got {type(plans).__name__}")
    if odd := [name for name, plan in plans.items() if not isinstance(plan, _TensorPlan)]:
        raise CheckpointError(f"{odd[0]} must be a tensor, got {type(plans[odd[0]]).__name__}")
    storages: dict[str, bytes] = {}
    return {name: _tensor(archive, root, plan, storages) for name, plan in plans.items()}


def _member(archive: zipfile.ZipFile, name: str, limit: int) -> bytes:
    size = archive.getinfo(name).file_size
    if size > limit:
        raise CheckpointError(f"{name} must have at most {limit:,} bytes, got {size:,}")
    return archive.read(name)


def _tensor(archive: zipfile.ZipFile, root: str, plan: _TensorPlan, storages: dict[str, bytes]) -> np.ndarray:
    storage, offset, shape, stride = plan
    if storage.key not in storages:
        storages[storage.key] = _member(archive, f"{root}data/{storage.key}", MAX_STORAGE_BYTES)
    elements = np.frombuffer(storages[storage.key], storage.dtype)
    numbers = (offset, *shape, *stride)
    if len(shape) != len(stride) or not all(type(n) is int and n >= 0 for n in numbers):
        raise CheckpointError(f"a tensor has shape {shape}, stride {stride}, offset {offset}")
    last = offset + sum((n - 1) * step for n, step in zip(shape, stride, strict=True))
    # A stride of 0 could claim more elements than there are bytes, so the count is bounded, too.
    if prod(shape) and (last >= len(elements) or prod(shape) > len(elements)):
        raise CheckpointError(f"a tensor of shape {shape} reaches beyond its {len(elements)} elements")
    if not prod(shape):
        return np.zeros(shape, storage.dtype)
    steps = [step * elements.itemsize for step in stride]
    return np.lib.stride_tricks.as_strided(elements[offset:], shape, steps, writeable=False).copy()


def _rebuild_tensor(storage: Any, offset: int, shape: Any, stride: Any, *_: Any) -> _TensorPlan:
    if not isinstance(storage, _Storage) or not isinstance(shape, tuple) or not isinstance(stride, tuple):
        raise CheckpointError("a tensor is not described as torch describes one")
    return _TensorPlan(storage, offset, shape, stride)


def _rebuild_parameter(plan: Any, *_: Any) -> Any:
    return plan


_ALLOWED: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): OrderedDict,
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
    ("torch._utils", "_rebuild_parameter"): _rebuild_parameter,
    **{("torch", name): _StorageType(dtype) for name, dtype in _DTYPES.items()},
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        try:
            return _ALLOWED[module, name]
        except KeyError:
            raise CheckpointError(
                f"asks for {module}.{name}, which no state dict of tensors needs; refused"
            ) from None

    def persistent_load(self, pid: Any) -> _Storage:
        match pid:
            case ("storage", _StorageType(dtype), str(key), str(), int(length)) if key.isalnum():
                return _Storage(key, dtype, length)
        raise CheckpointError("a storage is not described as torch describes one")
