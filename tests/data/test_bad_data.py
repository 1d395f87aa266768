"""Bad data: each ends with status 3 (2 where a tokenizer or name is at fault) and one line that names the
culprit.
"""

import gzip
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from llm_jax.cli import command
from llm_jax.config.run import DataConfig
from llm_jax.data.store import prepare_store
from llm_jax.prepare import prepare

GOOD = "The salesperson listens, and then the salesperson asks. " * 30


def refusal(words: list[str], capsys: pytest.CaptureFixture[str], status: int = 3) -> str:
    with pytest.raises(SystemExit) as stop:
        command.run(prepare, words)
    err = capsys.readouterr().err
    assert stop.value.code == status, err
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    return err


# File content -> what the line must name, beside the file.
BAD_TEXTS: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "nothing"),
    "white space": (b" \n\t\n" * 50, "only white space"),
    "byte-order mark alone": (b"\xef\xbb\xbf", "nothing"),
    "latin-1": (GOOD.encode() + b"caf\xe9", f"byte {len(GOOD) + 3} (0xe9)"),
    "truncated utf-16": (GOOD.encode("utf-16")[:-1], f"must be UTF-16 text, but byte {2 * len(GOOD)}"),
    "utf-16 without its mark": (GOOD.encode("utf-16-le"), "zero bytes"),
    "truncated gzip": (gzip.compress(GOOD.encode())[:-20], "cannot be read"),
    "damaged gzip": (b"\x1f\x8b" + b"garbage" * 9, "cannot be read"),
    "empty gzip": (gzip.compress(b""), "nothing"),
    "gzip of latin-1": (gzip.compress(b"\xe9"), "byte 0"),
    "one word": (b"hi", "at least 2 tokens"),
    "surrogates": (b"ok \xed\xa0\x80", "byte 3"),
    "binary": (bytes(range(128, 256)), "byte 0"),
}


@pytest.mark.parametrize("name", BAD_TEXTS)
def test_bad_texts_are_refused_by_name(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content, named = BAD_TEXTS[name]
    path = tmp_path / "text.txt"
    path.write_bytes(content)
    line = refusal([str(path), "--prepared", str(tmp_path / "p")], capsys)
    assert named in line
    assert "text.txt" in line


def test_a_missing_file_is_refused_with_the_nearest_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "book.txt").write_text(GOOD)
    assert "did you mean" in refusal([str(tmp_path / "bok.txt")], capsys)


def test_a_misspelt_corpus_name_is_refused_with_the_nearest_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert "did you mean sales_handbook?" in refusal(["sales_handbok"], capsys)


def test_a_folder_without_text_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "picture.png").write_bytes(b"x")
    assert "must hold text files" in refusal([str(tmp_path)], capsys)


def test_a_folder_with_one_bad_file_names_that_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.txt").write_text(GOOD)
    (tmp_path / "b.txt").write_bytes(b"\xff")
    assert "b.txt" in refusal([str(tmp_path)], capsys)


def test_a_store_that_cannot_be_written_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "text.txt").write_text(GOOD)
    (tmp_path / "file").write_text("")
    words = [str(tmp_path / "text.txt"), "--prepared", str(tmp_path / "file" / "p")]
    assert "cannot be written" in refusal(words, capsys)


def test_a_vocabulary_larger_than_the_text_gives_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "text.txt").write_text(GOOD)
    words = [str(tmp_path / "text.txt"), "--tokenizer", "bpe", "--prepared", str(tmp_path / "p")]
    assert "bpe_vocab_size (4096) must be at most" in refusal(words, capsys)


def test_a_tokenizer_whose_file_cannot_be_had_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import tiktoken.load

    def offline(_: str) -> bytes:
        raise OSError("no network")

    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(tiktoken.load, "read_file", offline)
    (tmp_path / "text.txt").write_text(GOOD)
    words = [str(tmp_path / "text.txt"), "--tokenizer", "o200k_base", "--prepared", str(tmp_path / "p")]
    assert "TIKTOKEN_CACHE_DIR" in refusal(words, capsys, status=2)


def test_a_corpus_that_cannot_be_downloaded_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from llm_jax.data import corpora
    from llm_jax.data.download import Source

    monkeypatch.setitem(corpora.DOWNLOADS, "the_verdict", Source("http://127.0.0.1:9/x", "0" * 64))
    line = refusal(["the_verdict", "--prepared", str(tmp_path)], capsys)
    assert "could not be downloaded" in line
    assert "path of a local text file" in line


def edit(field: str, value: object) -> Callable[[Path], None]:
    def change(store: Path) -> None:
        manifest = json.loads((store / "manifest.json").read_text())
        *parents, last = field.split(".")
        node = manifest
        for parent in parents:
            node = node[parent]
        if value is KeyError:
            del node[last]
        else:
            node[last] = value
        (store / "manifest.json").write_text(json.dumps(manifest))

    return change


def flip(name: str) -> Callable[[Path], None]:
    def change(store: Path) -> None:
        raw = bytearray((store / name).read_bytes())
        raw[len(raw) // 2] ^= 1
        (store / name).write_bytes(raw)

    return change


def with_a_foreign_id(store: Path) -> None:
    import hashlib

    path = store / "train.bin"
    raw = b"\xff\xff" + path.read_bytes()[2:]
    path.write_bytes(raw)
    edit("splits.train.sha256", hashlib.sha256(raw).hexdigest())(store)


BAD_STORES: dict[str, tuple[Callable[[Path], object], str]] = {
    "flipped bit": (flip("train.bin"), "train.bin are not those written"),
    "flipped bit in validation": (flip("validation.bin"), "validation.bin are not those written"),
    "truncated": (lambda store: (store / "train.bin").write_bytes(b"\0\0"), "train.bin must have"),
    "odd size": (
        lambda store: (store / "train.bin").write_bytes((store / "train.bin").read_bytes() + b"\0"),
        "train.bin must have",
    ),
    "flipped bit in sizes": (flip("validation_sizes.bin"), "validation_sizes.bin are not those written"),
    "other bytes": (edit("splits.validation.bytes", 3), "validation_sizes.bin does not add up"),
    "no sizes": (edit("sizes", KeyError), "sizes"),
    "garbled fact": (edit("alters_text", "no"), "alters_text must be true or false"),
    "no share": (edit("validation_in_training", KeyError), "validation_in_training"),
    "garbled share": (edit("validation_in_training", "none"), "garbles"),
    "share beyond 1": (edit("validation_in_training", 2), "must be from 0 to 1"),
    "emptied": (lambda store: (store / "validation.bin").write_bytes(b""), "validation.bin must have"),
    "deleted shard": (lambda store: (store / "train.bin").unlink(), "train.bin cannot be read"),
    "deleted manifest": (lambda store: (store / "manifest.json").unlink(), "manifest.json cannot be read"),
    "emptied folder": (lambda store: [shutil.rmtree(store), store.mkdir()], "manifest.json cannot be read"),
    "garbage manifest": (
        lambda store: (store / "manifest.json").write_text("{"),
        "manifest.json cannot be read",
    ),
    "manifest of a list": (lambda store: (store / "manifest.json").write_text("[]"), "must hold an object"),
    "other version": (edit("version", 0), "must have version 3, got 0"),
    "no version": (edit("version", KeyError), "must have version 3"),
    "no splits": (edit("splits", KeyError), "splits"),
    "no digest": (edit("splits.train.sha256", KeyError), "sha256"),
    "other dtype": (edit("splits.train.dtype", "<f4"), "dtype <f4"),
    "wider dtype": (edit("splits.train.dtype", "<u4"), "must have"),
    "other count": (edit("splits.train.tokens", 3), "must have 6 bytes"),
    "other vocabulary size": (edit("vocab_size", 5), "vocab_size"),
    "tokenizer swapped": (edit("tokenizer", {"kind": "bytes"}), "not the one it was made with"),
    "tokenizer of no known kind": (edit("tokenizer.kind", "wordpiece"), "wordpiece"),
    "tokenizer without its ids": (edit("tokenizer.kept", KeyError), "kept"),
    "kept id beyond the base": (edit("tokenizer.kept", [10**7]), "kept ids"),
    "id outside the vocabulary": (with_a_foreign_id, "id outside the vocabulary"),
}


@pytest.mark.parametrize("name", BAD_STORES)
def test_a_damaged_store_is_refused_by_name_and_left_as_it_is(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = tmp_path / "text.txt"
    text.write_text(GOOD)
    store = prepare_store(DataConfig(corpus=str(text), prepared=tmp_path / "p"), print).path
    damage, named = BAD_STORES[name]
    damage(store)
    before = {path.name: path.read_bytes() for path in store.iterdir()}
    capsys.readouterr()
    line = refusal([str(text), "--prepared", str(tmp_path / "p")], capsys)
    assert named in line
    assert {path.name: path.read_bytes() for path in store.iterdir()} == before
