"""A file system that is full, or takes nothing, is one line with the path, and leaves no half a file."""

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from llm_jax.base.errors import UserError, writing
from llm_jax.cli import command
from llm_jax.display.page import write_page
from llm_jax.interop.pytorch.state_dict import write_state_dict_file, write_tensors

LARGE = {"a": np.zeros(100_000, np.float32)}


@contextmanager
def full_disk() -> Iterator[None]:
    """No file can have more than 4 KB: the system says EFBIG, where a full disk has ENOSPC."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_what_writes_a_file_says_which_and_leaves_nothing(tmp_path: Path) -> None:
    writers = {
        "m.safetensors": lambda out: write_state_dict_file(LARGE, out, lambda part: None),
        "page.html": lambda out: write_page(out, "x" * 100_000),
    }
    for name, write in writers.items():
        with full_disk(), pytest.raises(UserError) as caught:
            write(tmp_path / name)
        assert str(caught.value) == f"{tmp_path / name} cannot be written: File too large"
        with pytest.raises(UserError, match="cannot be written: No such file or directory"):
            write(tmp_path / "nowhere" / name)
    assert not list(tmp_path.iterdir())


def test_the_library_of_safetensors_fails_as_any_other_write(tmp_path: Path) -> None:
    with full_disk(), pytest.raises(OSError, match="File too large") as caught:
        write_tensors(LARGE, tmp_path / "m.safetensors")
    assert caught.value.filename == str(tmp_path / "m.safetensors")


def refused(function: object, capsys: pytest.CaptureFixture[str]) -> tuple[object, str]:
    with pytest.raises(SystemExit) as end:
        command.run(function, [])  # pyright: ignore[reportArgumentType] - any function is a command
    return end.value.code, capsys.readouterr().err.replace("\n", " ").strip()


def test_what_the_system_says_is_one_line_with_a_status_in_every_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def reads() -> None:
        (tmp_path / "[b]none").read_text()

    assert refused(reads, capsys) == (
        74,
        f"error: {tmp_path}/[b]none cannot be read or written: No such file or directory",
    )

    def writes() -> None:
        with full_disk(), (tmp_path / "out").open("wb") as file:
            file.write(bytes(100_000))

    status, told = refused(writes, capsys)
    assert (status, told) == (
        74,
        "error: a file cannot be read or written: File too large; make room, and give the same command again",
    )

    def names() -> None:
        with writing(tmp_path / "out"):
            raise OSError(30, "Read-only file system")

    assert refused(names, capsys) == (2, f"error: {tmp_path}/out cannot be written: Read-only file system")
