"""Corpora and stores under awkward names."""

import json
from pathlib import Path

import pytest

from llm_jax.base.errors import DataError
from llm_jax.cli import command
from llm_jax.config.run import DataConfig
from llm_jax.data.store import open_store, prepare_store
from llm_jax.prepare import prepare
from tests.support.awkward_paths import AWKWARD_NAMES

NAMES = [name for name in AWKWARD_NAMES.values() if "/" not in name]  # of one folder
NAMES += [".hidden", "#1%20", "$HOME `x`;&|"]
TEXT = "The salesperson listens, and then asks. " * 20


@pytest.mark.parametrize("name", NAMES)
def test_a_corpus_and_its_store_may_have_any_name(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / f"{name}.d"
    folder.mkdir()
    (folder / f"{name.lstrip('.')}.txt").write_text(TEXT)
    (tmp_path / name).write_text(TEXT)
    (tmp_path / "link").symlink_to(folder)
    found = set()
    for corpus in (str(folder), name, "link"):
        config = DataConfig(corpus=corpus, prepared=tmp_path / f"p{name}", tokenizer="bytes")
        remarks: list[str] = []
        store = prepare_store(config, remarks.append)
        assert open_store(store.path).fingerprint == prepare_store(config, print).fingerprint
        assert store.path.parent == config.prepared
        assert store.path.name.isprintable()
        assert not store.path.name.startswith(".")
        found.add(store.fingerprint)
    assert len(found) == 1


@pytest.mark.parametrize("name", ["[x]*?", "-dash", 'it\'s "so"', "~"])
def test_the_command_takes_it(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / name).write_text(TEXT)
    with pytest.raises(SystemExit) as stop:
        command.run(prepare, [str(tmp_path / name), "--tokenizer=bytes", f"--prepared={tmp_path / 'p'}"])
    assert not stop.value.code
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["bytes"] == len(TEXT)


@pytest.mark.parametrize("name", ["x" * 300, "x" * 5000, "a\0b"])
def test_a_path_that_no_file_can_have_is_refused(name: str, tmp_path: Path) -> None:
    from llm_jax.data.corpora import read_corpus

    with pytest.raises(DataError, match="corpus"):
        read_corpus(str(tmp_path / name), downloads=tmp_path, errors="strict", report=print)
