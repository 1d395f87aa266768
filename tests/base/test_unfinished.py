"""Files and folders that are being made: two writers never share one, and what killed ones left goes."""

import hashlib
import io
import json
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from llm_jax.base import files
from llm_jax.base.errors import DataError
from llm_jax.config.run import DataConfig
from llm_jax.data.download import CHUNK, Source, download
from llm_jax.data.store import Store, open_store, prepare_store
from llm_jax.evaluation.baselines import cached_baselines, ngram_baselines

CONTENT = bytes(range(256)) * (5 * CHUNK // 256)
SOURCE = Source("https://nowhere.invalid/x", hashlib.sha256(CONTENT).hexdigest())


class Answer(io.BytesIO):
    """What a server sends from `begin` on; `meanwhile` is called when half of it is read."""

    def __init__(self, begin: int = 0, meanwhile: Any = None):
        super().__init__(CONTENT[begin:])
        self.status, self.headers = 206 if begin else 200, {}
        self._meanwhile = meanwhile

    def read(self, size: int | None = -1, /) -> bytes:
        if self._meanwhile and self.tell() >= len(CONTENT) // 2:
            meanwhile, self._meanwhile = self._meanwhile, None
            meanwhile()
        return super().read(size)


def opening(meanwhile: Any = None) -> Any:
    def open_url(request: Any, timeout: float) -> Answer:
        return Answer(int(request.headers.get("Range", "bytes=0-")[6:-1]), meanwhile)

    return open_url


def test_two_downloads_of_one_corpus_at_once_write_two_files(tmp_path: Path) -> None:
    target = tmp_path / "file.txt"

    def another() -> None:
        assert download(SOURCE, target, print, opening()).read_bytes() == CONTENT

    assert download(SOURCE, target, print, opening(another)).read_bytes() == CONTENT
    assert [path.name for path in tmp_path.iterdir()] == ["file.txt"]


def test_a_part_that_is_wrong_is_never_trusted_and_goes(tmp_path: Path) -> None:
    (tmp_path / "file.txt.part").write_bytes(b"x" * CHUNK)
    with pytest.raises(DataError, match="not kept"):
        download(SOURCE, tmp_path / "file.txt", print, opening())
    (tmp_path / "file.txt.part-1").write_bytes(b"x")  # of a process that was killed
    download(SOURCE, tmp_path / "file.txt", print, opening())
    assert [path.name for path in tmp_path.iterdir()] == ["file.txt"]


def test_a_download_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file.txt").mkdir()
    with pytest.raises(DataError, match="cannot be read"):
        download(SOURCE, tmp_path / "file.txt", print, opening())


@contextmanager
def process_with_a_folder(parent: Path) -> Iterator[tuple["subprocess.Popen[str]", Path]]:
    """Another process that has a new folder, for as long as it lives."""
    code = (
        "import sys, pathlib; from llm_jax.base.files import new_folder\n"
        "with new_folder(pathlib.Path(sys.argv[1]), '.preparing-') as path: print(path, flush=True); input()"
    )
    words = [sys.executable, "-c", code, str(parent)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield process, Path(process.stdout.readline().strip())
        process.kill()


def prepared(folder: Path, corpus: str = "text.txt") -> Store:
    (folder / corpus).write_text("The salesperson listens, and asks. " * 30)
    config = DataConfig(corpus=str(folder / corpus), prepared=folder, tokenizer="bytes")
    return prepare_store(config, lambda _: None)


def test_what_a_killed_process_left_goes_at_the_next_start_and_a_living_ones_stays(tmp_path: Path) -> None:
    with process_with_a_folder(tmp_path) as (living, kept), process_with_a_folder(tmp_path) as (killed, left):
        (left / "train.bin").write_bytes(b"x")
        killed.send_signal(signal.SIGKILL)
        killed.wait()
        assert kept.exists()
        assert left.exists()
        prepared(tmp_path)
        assert kept.exists()
        assert not left.exists()
        assert living.poll() is None


def test_a_corpus_that_is_named_like_unfinished_work_keeps_its_store(tmp_path: Path) -> None:
    store = prepared(tmp_path, ".preparing-x.txt")
    prepared(tmp_path)
    assert open_store(store.path).fingerprint == store.fingerprint


def test_without_locks_only_what_is_older_than_a_day_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_locks(*_: object) -> None:
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(files.fcntl, "flock", no_locks)
    for name in ("old", "new"):
        (tmp_path / f".preparing-{name}").mkdir()
    os.utime(tmp_path / ".preparing-old", (0, 0))
    prepared(tmp_path)
    assert [path.name for path in tmp_path.glob(".preparing-*")] == [".preparing-new"]
    assert download(SOURCE, tmp_path / "file", print, opening()).read_bytes() == CONTENT


def test_stores_have_the_access_that_the_umask_gives(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        store = prepared(tmp_path)
    finally:
        os.umask(before)
    assert stat.S_IMODE(store.path.stat().st_mode) == 0o750
    assert {stat.S_IMODE(path.stat().st_mode) for path in store.path.iterdir()} == {0o640}


@pytest.mark.parametrize("name", ["manifest.json", "train.bin", "validation_sizes.bin"])
def test_a_store_that_only_cannot_be_read_is_not_called_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    store, read = prepared(tmp_path), Path.read_bytes

    def denied(path: Path) -> bytes:
        if path.name == name:
            raise PermissionError(13, "Permission denied")
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", denied)
    with pytest.raises(DataError, match=f"cannot be read: {name}: Permission denied") as refusal:
        open_store(store.path)
    assert "damaged" not in str(refusal.value)
    assert "delete" not in str(refusal.value)


def test_baselines_are_kept_whole_and_what_a_killed_process_left_of_them_goes(tmp_path: Path) -> None:
    path, tokens = tmp_path / "baselines.json", np.arange(30) % 7
    (tmp_path / "baselines.json.123").write_text("{")
    baselines = ngram_baselines(tokens, tokens, 7)
    assert cached_baselines(path, tokens, tokens, 7) == baselines
    assert [path.name for path in tmp_path.iterdir()] == ["baselines.json"]
    known = json.loads(path.read_text())
    path.write_text(json.dumps(known | {"nats_per_token": dict.fromkeys(baselines, float("nan"))}))
    (tmp_path / "baselines.json.124").write_text("{")
    assert cached_baselines(path, tokens, tokens, 7) == baselines
    assert [path.name for path in tmp_path.iterdir()] == ["baselines.json"]
