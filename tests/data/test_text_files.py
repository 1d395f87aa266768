"""Folders of text: what is taken, what is left out and said, and bytes that say how they are to be read."""

import os
from pathlib import Path

import pytest

from llm_jax.base.errors import DataError
from llm_jax.data.corpora import read_corpus


def read(path: Path, errors: str = "strict") -> tuple[str, list[str]]:
    """The text, and the remarks."""
    remarks: list[str] = []
    corpus = read_corpus(str(path), downloads=path, errors=errors, report=remarks.append)
    return corpus.text, remarks


def write(folder: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def test_a_folder_says_in_one_line_what_it_took_and_what_it_left_out(tmp_path: Path) -> None:
    files = {
        "B.TXT": b"upper",
        "a/b.Md": b"mixed",
        "a/c.txt": b"lower",
        "a/.ipynb_checkpoints/c-checkpoint.txt": b"lower",
        ".git/x.txt": b"no",
        ".hidden.txt": b"no",
        "picture.png": b"\x89PNG",
        "no suffix": b"no",
        "1.csv": b"no",
        "2.csv": b"no",
        "program.txt": b"\x7fELF\0\0\0",
    }
    text, (line,) = read(write(tmp_path, files))
    assert text == "upper\nmixed\nlower"
    assert line == (
        f"folder {tmp_path}: took 3 files, 15 bytes; left out 3 hidden (.git, .hidden.txt, "
        "a/.ipynb_checkpoints), 4 not .txt .md .text .rst .gz (1.csv, 2.csv, no suffix, and 1 more), "
        "1 binary (program.txt)"
    )
    (tmp_path / "x").mkdir()
    assert read(write(tmp_path / "x", {"a.txt": b"a"}))[1] == [
        f"folder {tmp_path / 'x'}: took 1 file, 1 bytes; left out nothing"
    ]


def test_links_are_followed_and_what_they_lead_to_is_taken_once(tmp_path: Path) -> None:
    outside = write(tmp_path / "outside", {"deep/o.txt": b"outside"})
    folder = write(tmp_path / "folder", {"b/b.txt": b"own"})
    links = {"a": "b", "b/loop": "..", "here": ".", "out": outside, "again.txt": "b/b.txt", "no.txt": "gone"}
    for name, target in links.items():
        (folder / name).symlink_to(target)
    (folder / "ring.txt").symlink_to("ring.txt")
    (outside / "back").symlink_to(folder)
    text, (line,) = read(folder)
    assert text == "own\noutside"
    assert "took 2 files" in line
    assert "2 links to nowhere (no.txt, ring.txt)" in line
    assert "5 the same again (a/, here/, b/loop/, and 2 more)" in line
    (folder / "hard.txt").hardlink_to(folder / "b" / "b.txt")
    assert read(folder)[0] == "own\noutside"


def test_what_is_neither_file_nor_folder_is_left_out(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.txt")
    (tmp_path / "a.txt").write_text("text")
    text, (line,) = read(tmp_path)
    assert text == "text"
    assert "1 neither file nor folder (pipe.txt)" in line


@pytest.mark.parametrize("what", ["a.txt", "dir"])
def test_what_cannot_be_read_is_named_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    def denying(function):
        def denied(path, *rest):
            if Path(path).name == what:
                raise PermissionError(13, "Permission denied")
            return function(path, *rest)

        return denied

    write(tmp_path, {"a.txt": b"one", "b.txt": b"two", "dir/c.txt": b"three"})
    monkeypatch.setattr(Path, "read_bytes", denying(Path.read_bytes))
    monkeypatch.setattr(os, "listdir", denying(os.listdir))
    with pytest.raises(DataError, match=rf"cannot be read: {what} \(Permission denied\); make it readable"):
        read(tmp_path)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
def test_a_mark_says_how_bytes_are_read(tmp_path: Path, encoding: str) -> None:
    text = "naïve 漢字 🙂\n"
    (tmp_path / "x.txt").write_bytes(text.encode(encoding))
    found, remarks = read(tmp_path / "x.txt")
    assert found == text
    said = f"{tmp_path}/x.txt: read as {encoding.upper()}, which its mark says it is"
    assert remarks == ([] if "8" in encoding else [said])
    big = {"utf-16": b"\xfe\xff", "utf-32": b"\0\0\xfe\xff"}.get(encoding)
    if big:
        (tmp_path / "x.txt").write_bytes(big + text.encode(encoding + "-be"))
        assert read(tmp_path / "x.txt")[0] == text


def test_replacing_counts_in_every_encoding(tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_bytes("a\ufffd🙂".encode("utf-16") + b"\x00\xd8")
    text, remarks = read(tmp_path / "x.txt", "replace")
    assert text == "a\ufffd🙂\ufffd"
    assert "1 stretches of bytes were not UTF-16" in remarks[1]


def test_a_line_about_a_folder_has_nothing_that_a_terminal_obeys(tmp_path: Path) -> None:
    write(tmp_path, {"a.txt": b"a", "b\n\x1b[31m.png": b"x", "c\x9b.txt\n": b"x"})
    (_, (line,)) = read(tmp_path)
    assert line.isprintable()
    assert r"b\n\x1b[31m.png" in line
