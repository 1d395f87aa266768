"""The torch tutorial's state dict: every tensor accounted for, every bit kept, nothing in a file executed."""

import io
import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from llm_jax.base.errors import CheckpointError
from llm_jax.base.tree import Tree, flatten, require_same_shapes, unflatten
from llm_jax.config.model import ModelConfig
from llm_jax.interop.pytorch.pickle_reader import read_state_dict
from llm_jax.interop.pytorch.tutorial import export_state_dict, import_params, infer_config
from llm_jax.model.decoder import abstract_params


def test_export_then_import_gives_back_every_bit(tiny: ModelConfig, tiny_params: Tree) -> None:
    state_dict = export_state_dict(tiny_params, tiny)
    assert infer_config(state_dict) == ModelConfig(**{**tiny.__dict__})
    back = import_params(state_dict, tiny)
    require_same_shapes(back, abstract_params(tiny), "it")
    assert jax.tree.all(jax.tree.map(np.array_equal, back, tiny_params))
    again = export_state_dict(back, tiny)
    assert again.keys() == state_dict.keys()
    assert all(np.array_equal(again[name], state_dict[name]) for name in again)


def test_missing_extra_and_misshapen_tensors_are_named(tiny: ModelConfig, tiny_params: Tree) -> None:
    good = export_state_dict(tiny_params, tiny)
    name = "transformer_blocks.1.layer_norm_2.bias"
    cases = {
        f"{name} is missing": {key: value for key, value in good.items() if key != name},
        "extra is not part of the tutorial": good | {"extra": np.zeros(3)},
        f"{name} has shape \\(4,\\), must have": good | {name: np.zeros(4, np.float32)},
    }
    for message, state_dict in cases.items():
        with pytest.raises(CheckpointError, match=message):
            import_params(state_dict, tiny)
    with pytest.raises(CheckpointError, match="not the torch tutorial's"):
        infer_config({"wte.weight": np.zeros((3, 3))})


def test_a_model_that_the_format_has_no_room_for_is_refused(tiny: ModelConfig, tiny_params: Tree) -> None:
    import dataclasses

    with pytest.raises(CheckpointError, match="activation"):
        export_state_dict(tiny_params, dataclasses.replace(tiny, activation="gelu"))


def test_trees_flatten_to_paths_and_back(tiny_params: Tree) -> None:
    leaves = dict(flatten(tiny_params))
    assert "blocks/query/kernel" in leaves
    assert jax.tree.structure(unflatten(leaves)) == jax.tree.structure(tiny_params)
    with pytest.raises(CheckpointError, match="head/kernel is missing"):
        require_same_shapes(
            {name: tree for name, tree in tiny_params.items() if name != "head"}, tiny_params, "x"
        )
    with pytest.raises(CheckpointError, match="extra/a is not part"):
        require_same_shapes(tiny_params | {"extra": {"a": np.zeros(1)}}, tiny_params, "x")


# --- torch's .pt files, made here by hand: a zip of a pickle and raw storages.


class _Global:
    """Pickles as the look-up of a name, with the call of it if arguments are given."""

    def __init__(self, module: str, name: str, arguments: tuple | None = None):
        self.module, self.name, self.arguments = module, name, arguments


class _Persistent:
    def __init__(self, pid: Any):
        self.pid = pid


def _encode(value: Any) -> bytes:
    """A pickle of protocol 2 for plain values, globals and persistent ids."""
    if isinstance(value, _Global):
        look_up = b"c" + f"{value.module}\n{value.name}\n".encode()
        return look_up if value.arguments is None else look_up + _encode(value.arguments) + b"R"
    if isinstance(value, _Persistent):
        return _encode(value.pid) + b"Q"
    if isinstance(value, tuple):
        return b"(" + b"".join(map(_encode, value)) + b"t"
    if isinstance(value, dict):
        return b"}(" + b"".join(_encode(k) + _encode(v) for k, v in value.items()) + b"u"
    return pickle.dumps(value, 2)[2:-1]  # without the protocol in front and the stop at the end


def tensor(
    shape: tuple = (2, 3),
    stride: tuple = (3, 1),
    offset: Any = 0,
    storage: Any = None,
    key: str = "0",
    kind: str = "FloatStorage",
) -> _Global:
    storage = storage or _Persistent(("storage", _Global("torch", kind), key, "cpu", 6))
    return _Global("torch._utils", "_rebuild_tensor_v2", (storage, offset, shape, stride, False, None))


VALUES = np.arange(6, dtype=np.float32)


def write_pt(path: Path, content: Any, members: dict[str, bytes] | None = None) -> Path:
    raw = content if isinstance(content, bytes) else b"\x80\x02" + _encode(content) + b"."
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("model/data.pkl", raw)
        for name, data in (members if members is not None else {"model/data/0": VALUES.tobytes()}).items():
            archive.writestr(name, data)
    return path


def test_tensors_come_with_shape_stride_and_offset(tmp_path: Path) -> None:
    content = {
        "plain": tensor(),
        "transposed": tensor((3, 2), (1, 3)),
        "part": tensor((2,), (2,), 1),
        "scalar": tensor((), (), 5),
        "empty": tensor((0, 3), (3, 1)),
    }
    read = read_state_dict(write_pt(tmp_path / "x.pt", content))
    assert read["plain"].tolist() == [[0, 1, 2], [3, 4, 5]]
    assert read["transposed"].tolist() == [[0, 3], [1, 4], [2, 5]]
    assert read["part"].tolist() == [1, 3]
    assert read["scalar"].tolist() == 5
    assert read["empty"].shape == (0, 3)


def system(canary: Path) -> _Global:
    return _Global("os", "system", (f"touch {canary}",))


# What is wrong -> a function of the canary's path that gives the pickle's content.
HOSTILE: dict[str, Callable[[Path], Any]] = {
    "a call in place of the dict": system,
    "a call as a value": lambda canary: {"w": system(canary)},
    "a call as a key": lambda canary: {system(canary): tensor()},
    "a call as the storage": lambda canary: {"w": tensor(storage=system(canary))},
    "a call as the shape": lambda canary: {"w": tensor(shape=system(canary))},
    "a call as the stride": lambda canary: {"w": tensor(stride=system(canary))},
    "a call as the offset": lambda canary: {"w": tensor(offset=system(canary))},
    "a call in the storage's id": lambda canary: {"w": tensor(storage=_Persistent(system(canary)))},
    "builtins.eval": lambda canary: {"w": _Global("builtins", "eval", (f"open({str(canary)!r}, 'w')",))},
    "builtins.getattr": lambda _: {"w": _Global("builtins", "getattr", ({}, "clear"))},
    "subprocess": lambda canary: {"w": _Global("subprocess", "call", (("touch", str(canary)),))},
    "another name of torch": lambda _: {"w": _Global("torch", "load", ("x",))},
    "numpy": lambda _: {"w": _Global("numpy.core.multiarray", "_reconstruct", ())},
    "a whole module": lambda _: {"w": _Global("torch.nn.modules.linear", "Linear")},
    "a list": lambda _: (1, 2),
    "a number for a tensor": lambda _: {"w": 3},
    "a name that is a number": lambda _: {3: tensor()},
    "a shape beyond the storage": lambda _: {"w": tensor((2, 4), (4, 1))},
    "a stride beyond the storage": lambda _: {"w": tensor((2, 3), (4, 1))},
    "an offset beyond the storage": lambda _: {"w": tensor(offset=1)},
    "a negative offset": lambda _: {"w": tensor(offset=-1)},
    "a negative stride": lambda _: {"w": tensor(stride=(-3, 1), offset=3)},
    "a negative shape": lambda _: {"w": tensor((-2, -3), (3, 1))},
    "a stride of nothing": lambda _: {"w": tensor((1 << 20, 1 << 20), (0, 0))},
    "a huge shape": lambda _: {"w": tensor((1 << 40,), (1,))},
    "a float for a shape": lambda _: {"w": tensor((2.0, 3.0), (3, 1))},
    "fewer strides than sizes": lambda _: {"w": tensor((2, 3), (1,))},
    "a key that climbs": lambda _: {"w": tensor(key="../../etc/passwd")},
    "a key that is absent": lambda _: {"w": tensor(key="7")},
    "an unknown storage": lambda _: {"w": tensor(kind="UntypedStorage")},
    "no pickle": lambda _: b"hello",
    "an empty pickle": lambda _: b"",
    "a cut pickle": lambda _: b"\x80\x02}(X\xff\xff\xff\x00",
    "a stack underflow": lambda _: b"\x80\x02R.",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files_are_refused_and_execute_nothing(name: str, tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    path = write_pt(tmp_path / "x.pt", HOSTILE[name](canary))
    with pytest.raises(CheckpointError, match=r"x\.pt") as refusal:
        read_state_dict(path)
    assert "\n" not in str(refusal.value)
    assert {file.name for file in tmp_path.iterdir()} == {"x.pt"}


def test_files_that_are_no_torch_zip_are_refused(tmp_path: Path) -> None:
    good = write_pt(tmp_path / "good.pt", {"w": tensor()}).read_bytes()
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("other/readme", "x")
    cases = {
        "cut": good[: len(good) // 2],
        "legacy": pickle.dumps({"w": 1}),
        "empty": b"",
        "no pickle inside": buffer.getvalue(),
        "flipped": good[:60] + struct.pack("<I", 0xDEADBEEF) + good[64:],
    }
    for raw in cases.values():
        (tmp_path / "bad.pt").write_bytes(raw)
        with pytest.raises(CheckpointError):
            read_state_dict(tmp_path / "bad.pt")
    for members in (
        {"model/data/0": b"\0" * 8},
        {},
        {"model/data/0": VALUES.tobytes(), "model/byteorder": b"big"},
    ):
        with pytest.raises(CheckpointError):
            read_state_dict(write_pt(tmp_path / "bad.pt", {"w": tensor()}, members))
