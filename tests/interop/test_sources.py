"""Directories as Hugging Face writes them: every bit comes, one tensor at a time; whatever lies, is cut or
climbs is refused in one line, and nothing in a file is executed.
"""

import json
import os
import pickle
import random
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file

from llm_jax.base.errors import CheckpointError
from llm_jax.interop.huggingface.read_directory import open_directory
from llm_jax.interop.source import Source, quoted

TENSORS = {
    "model.embed_tokens.weight": np.arange(6, dtype=np.float32).reshape(2, 3),
    "model.norm.weight": np.asarray([1.5, -2.0, 3.0], ml_dtypes.bfloat16),
    "scale": np.asarray(0.5, np.float16),
}
INDEX = "model.safetensors.index.json"
FIRST, SECOND = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"


def write(folder: Path, name: str, content: Any) -> None:
    (folder / name).write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())


def whole(folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    write(folder, "config.json", {"model_type": "llama"})
    save_file(TENSORS, folder / "model.safetensors")
    return folder


def sharded(folder: Path) -> Path:
    """The same tensors: the first in one file, the others in a second."""
    folder.mkdir(exist_ok=True)
    write(folder, "config.json", {"model_type": "llama"})
    names = list(TENSORS)
    save_file({names[0]: TENSORS[names[0]]}, folder / FIRST)
    save_file({name: TENSORS[name] for name in names[1:]}, folder / SECOND)
    homes = {name: FIRST if name == names[0] else SECOND for name in names}
    write(folder, INDEX, {"metadata": {"total_size": 32}, "weight_map": homes})
    return folder


@pytest.mark.parametrize("layout", [whole, sharded])
def test_every_tensor_comes_with_its_own_type_and_every_bit(
    layout: Callable[[Path], Path], tmp_path: Path
) -> None:
    source = open_directory(layout(tmp_path / "model"))
    assert source.config == {"model_type": "llama"}
    assert source.shapes == {name: tensor.shape for name, tensor in TENSORS.items()}
    for name, tensor in TENSORS.items():
        read = source.read(name)
        assert (read.dtype, read.tobytes()) == (tensor.dtype, tensor.tobytes())
    with pytest.raises(CheckpointError, match="no tensor 'other'"):
        source.read("other")


def test_bfloat16_needs_nothing_that_was_imported_before(tmp_path: Path) -> None:
    source = "from pathlib import Path; from llm_jax.interop.huggingface.read_directory import open_directory"
    source += f"; print(open_directory(Path({str(whole(tmp_path))!r})).read('model.norm.weight').dtype)"
    run = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, check=True)
    assert run.stdout == "bfloat16\n"


def test_a_snapshot_of_the_hub_may_link_to_its_own_store(tmp_path: Path) -> None:
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    for file in whole(blobs).iterdir():
        (snapshot / file.name).symlink_to(Path("../../blobs") / file.name)
    assert open_directory(snapshot).shapes.keys() == TENSORS.keys()


def raw(header: Any, data: bytes = bytes(8), length: int | None = None) -> bytes:
    """A .safetensors file of any header."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return (len(text) if length is None else length).to_bytes(8, "little") + text + data


def entry(**changes: Any) -> dict[str, Any]:
    return {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]} | changes


def weights(content: bytes) -> Callable[[Path], None]:
    return lambda folder: write(folder, "model.safetensors", content)


def config(content: Any) -> Callable[[Path], None]:
    return lambda folder: write(folder, "config.json", content)


def index(content: Any) -> Callable[[Path], None]:
    """The sharded layout with another index."""

    def change(folder: Path) -> None:
        (folder / "model.safetensors").unlink()
        sharded(folder)
        homes = json.loads((folder / INDEX).read_bytes())["weight_map"]
        write(folder, INDEX, content(homes) if callable(content) else content)

    return change


def first_at(shard: Any) -> Callable[[Path], None]:
    return index(lambda homes: {"weight_map": homes | {"model.embed_tokens.weight": shard}})


def leads_nowhere(name: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        (folder / name).unlink()
        (folder / name).symlink_to(folder.parent / "blobs" / "gone")

    return change


def only_a_pickle(folder: Path) -> None:
    class Touch:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.system, (f"touch {folder.parent / 'canary'}",)

    (folder / "model.safetensors").unlink()
    write(folder, "pytorch_model.bin", pickle.dumps(Touch()))


def fifo(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    os.mkfifo(folder / "model.safetensors")


TWICE = json.dumps({"a": entry()})[:-1] + "," + json.dumps({"a": entry()})[1:]
MANY = raw(
    {str(i): entry(dtype="F16", shape=[1], data_offsets=[2 * i, 2 * i + 2]) for i in range(65_537)},
    bytes(2 * 65_537),
)
HOSTILE: dict[str, Callable[[Path], Any]] = {
    "no config": lambda folder: (folder / "config.json").unlink(),
    "a config that is a list": config([1]),
    "a config that is text": config(b"hello"),
    "a config of another encoding": config(b"\xff\xfe{}"),
    "a config nested without end": config(b"[" * 100_000),
    "a number without end in the config": config(b'{"a": ' + b"9" * 10_000 + b"}"),
    "a name twice in the config": config(b'{"a": 1, "a": 2}'),
    "a huge config": config(b'{"a": "' + b"x" * (33 << 20) + b'"}'),
    "a config that is a link to nothing": leads_nowhere("config.json"),
    "no weights": lambda folder: (folder / "model.safetensors").unlink(),
    "weights that are a link to nothing": leads_nowhere("model.safetensors"),
    "weights that are a directory": lambda folder: (
        (folder / "model.safetensors").unlink(),
        (folder / "model.safetensors").mkdir(),
    ),
    "weights that are a pipe": fifo,
    "weights that are a loop": lambda folder: (
        (folder / "model.safetensors").unlink(),
        (folder / "model.safetensors").symlink_to("model.safetensors"),
    ),
    "only a pickle": only_a_pickle,
    "a pickle called safetensors": weights(pickle.dumps({"a": 1})),
    "an empty file": weights(b""),
    "a cut length": weights(b"\x10\0\0"),
    "a cut header": weights(raw({"a": entry()})[:20]),
    "cut data": weights(raw({"a": entry()}, bytes(7))),
    "data behind the end": weights(raw({"a": entry()}, bytes(9))),
    "a header of 2^63 bytes": weights(raw({"a": entry()}, length=1 << 63)),
    "a header of 99 MB": weights(raw({"a": entry()}, length=99_000_000)),
    "a header that is a list": weights(raw([entry()])),
    "a header that is not UTF-8": weights(raw(b'{"\xff": 1}')),
    "no tensors": weights(raw({}, b"")),
    "a name twice in one file": weights(raw(TWICE.encode())),
    "tensors that overlap": weights(raw({"a": entry(), "b": entry()})),
    "a hole between tensors": weights(raw({"a": entry(data_offsets=[8, 16])}, bytes(16))),
    "offsets backwards": weights(raw({"a": entry(data_offsets=[8, 0])})),
    "offsets beyond the end": weights(raw({"a": entry(data_offsets=[0, 1 << 60], shape=[1 << 58])})),
    "a negative shape": weights(raw({"a": entry(shape=[-2])})),
    "a shape that overflows": weights(raw({"a": entry(shape=[1 << 40, 1 << 40])})),
    "a shape without elements": weights(raw({"a": entry(shape=[0, 1 << 60], data_offsets=[0, 0])}, b"")),
    "a shape of 70 dimensions": weights(raw({"a": entry(shape=[1] * 69 + [2])})),
    "an unknown type": weights(raw({"a": entry(dtype="F33")})),
    "a name of two lines": weights(raw({"a\nb\x1b[2J": entry(dtype="I64", shape=[1])})),
    "65,537 tensors": weights(MANY),
    "an index that is a list": index([1]),
    "an index without a map": index({"metadata": {}}),
    "an index with a map of nothing": index({"weight_map": {}}),
    "an index with a map that is a list": index({"weight_map": ["a"]}),
    "a shard that is a number": first_at(3),
    "a shard above": first_at("../model-00001-of-00002.safetensors"),
    "a shard at the root": first_at("/etc/model.safetensors"),
    "a shard below": first_at("below/model.safetensors"),
    "a shard of another drive": first_at("C:\\model.safetensors"),
    "a shard with a zero byte": first_at("model\0.safetensors"),
    "a shard with half a character": first_at("\ud800.safetensors"),
    "a shard with a long name": first_at("a" * 300 + ".safetensors"),
    "a shard that is a pickle": first_at("pytorch_model.bin"),
    "a shard that is the directory's parent": first_at(".."),
    "a shard that is missing": first_at("model-00009-of-00002.safetensors"),
    "a shard of another tensor": first_at(SECOND),
    "a shard that is a link to nothing": lambda folder: (
        index(lambda homes: {"weight_map": homes})(folder),
        leads_nowhere(FIRST)(folder),
    ),
    "a tensor that no shard has": index(lambda homes: {"weight_map": homes | {"ghost": FIRST}}),
    "a tensor that the index has not": index(
        lambda homes: {"weight_map": {name: homes[name] for name in list(homes)[:2]}}
    ),
    "a tensor in two shards": lambda folder: (
        index(lambda homes: {"weight_map": homes})(folder),
        save_file(TENSORS, folder / FIRST),
    ),
    "a tensor twice in the index": index(f'{{"weight_map": {{"a": "{FIRST}", "a": "{SECOND}"}}}}'.encode()),
}


def refusal_of(act: Callable[[], Any]) -> str:
    """The one line that an error must be."""
    with pytest.raises(CheckpointError) as refusal:
        act()
    line = str(refusal.value)
    assert line.isprintable(), line
    assert len(line) < 1000
    return line


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_directories_are_refused_in_one_line(name: str, tmp_path: Path) -> None:
    folder = whole(tmp_path / "model")
    HOSTILE[name](folder)
    before = sorted(tmp_path.rglob("*"))
    began = time.monotonic()
    assert str(folder) in refusal_of(lambda: open_directory(folder))
    assert time.monotonic() - began < 5
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("kind", ["I64", "U8", "BOOL", "F64", "F8_E4M3"])
def test_numbers_that_no_model_has_are_refused_by_name(kind: str, tmp_path: Path) -> None:
    width = {"I64": 8, "F64": 8}.get(kind, 1)
    folder = whole(tmp_path / "model")
    write(folder, "model.safetensors", raw({"w": entry(dtype=kind, shape=[8 // width])}))
    line = refusal_of(lambda: open_directory(folder))
    assert f"'w' must be float32, float16 or bfloat16, got {kind}" in line


def test_what_must_be_done_about_a_pickle_is_said(tmp_path: Path) -> None:
    folder = whole(tmp_path / "model")
    only_a_pickle(folder)
    line = refusal_of(lambda: open_directory(folder))
    assert "pytorch_model.bin" in line
    assert "save the model as .safetensors" in line


def test_a_path_that_is_no_directory_is_refused(tmp_path: Path) -> None:
    write(tmp_path, "file", b"x")
    for path in (tmp_path / "file", tmp_path / "nothing"):
        assert "must be a directory" in refusal_of(lambda path=path: open_directory(path))


def read_all(source: Source) -> None:
    for name, shape in source.shapes.items():
        assert source.read(name).shape == shape


def test_flipped_and_cut_files_read_or_are_refused(tmp_path: Path) -> None:
    folder = whole(tmp_path / "model")
    good = (folder / "model.safetensors").read_bytes()
    random_ = random.Random(0)
    damaged = [good[:length] for length in range(0, len(good), 7)]
    for _ in range(600):
        flipped = bytearray(good)
        for _ in range(random_.choice([1, 1, 2, 8])):
            flipped[random_.randrange(len(good))] ^= 1 << random_.randrange(8)
        damaged.append(bytes(flipped))
    refusals: list[str] = []
    began = time.monotonic()
    for content in damaged:
        write(folder, "model.safetensors", content)
        try:
            read_all(open_directory(folder))
        except CheckpointError as error:
            refusals.append(str(error))
    assert all(line.isprintable() for line in refusals)
    assert 50 < len(refusals) < len(damaged)
    assert time.monotonic() - began < 60


def test_strangers_text_is_shown_in_one_short_line() -> None:
    assert quoted("a\nb\x1b") == r"'a\nb\x1b'"
    assert len(quoted("x" * 10_000)) < 150
