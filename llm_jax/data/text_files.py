"""Files of text as they lie on a disk: which of a folder are taken, and bytes to text. What records are made
of is read in `records`.

Nothing is left out in silence: what a folder has beside its text is counted and named by its kind.
"""

import codecs
import gzip
import io
import os
import stat
import zlib
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from llm_jax.base.errors import DataError

SUFFIXES = (".txt", ".md", ".text", ".rst", ".gz")
_RECORDS = {".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "jsonl", ".csv": "csv", ".tsv": "tsv"}
_RECORDS |= {".parquet": "parquet"}
_OTHER = f"not {' '.join(SUFFIXES)}"
_HIDDEN, _AGAIN, _BINARY = "hidden", "the same again", "binary"
_NOWHERE, _STRANGE = "links to nowhere", "neither file nor folder"
# UTF-32's little-endian mark begins with UTF-16's.
_MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
_BEGINNING = 8000  # bytes in which a zero tells that a file is no text
_NAMED = 3  # names of a kind that a line has
_GZIP = b"\x1f\x8b"

Stream = io.BufferedReader | gzip.GzipFile
# Gives the texts of a file of records, whose kind is said.
ReadRecords = Callable[[Path, str], list[str]]


@dataclass
class _Found:
    """What a folder has."""

    files: list[Path] = field(default_factory=list)  # in the order of their paths
    left_out: dict[str, list[str]] = field(default_factory=dict)
    unreadable: list[str] = field(default_factory=list)

    def leave_out(self, kind: str, name: str) -> None:
        self.left_out.setdefault(kind, []).append(name)

    def said_of_rest(self) -> str:
        kinds = [f"{len(names):,} {kind} ({_some(names)})" for kind, names in self.left_out.items()]
        return f"left out {', '.join(kinds) or 'nothing'}"


def kind_of(path: Path) -> str:
    """Return "jsonl", "csv", "tsv" or "parquet" by the end of a file's name, with .gz or without; else ''."""
    name = Path(path.name.lower())
    return _RECORDS.get(Path(name.stem).suffix if name.suffix == ".gz" else name.suffix, "")


def read_folder(
    folder: Path, kind: str, read_records: ReadRecords, errors: str, report: Callable[[str], None]
) -> tuple[list[str], bool]:
    """Return the texts of all text files of a folder in the order of their paths; where it has none, those of
    its files of records. Also whether they are of records.

    Hidden files and folders are left out. Links are followed; what several names lead to is taken once. One
    line reports what was taken and what was not.

    Args:
        folder: with folders in it, too.
        kind: "auto", or "text" for text files alone, or "jsonl", "csv", "tsv" or "parquet" for such records.
        read_records: reads a file of records.
        errors: see `decode_text`.
        report: gets one line a remark.

    Raises:
        DataError: a file or folder in it cannot be read or decoded, or no text file is there.
    """
    found, texts, size = _walk(folder), [], 0
    files, records = _chosen(found, folder, kind)
    if files and records and not found.unreadable:
        report(f"folder {printable(str(folder))}: {_counted(files)} of records; {found.said_of_rest()}")
        return [text for path in files for text in read_records(path, kind_of(path))], True
    for path in files:
        name = str(path.relative_to(folder))
        try:
            raw = _read_bytes(path)
        except OSError as error:
            found.unreadable.append(f"{name} ({error.strerror or error})")
            continue
        if _is_binary(raw):
            found.leave_out(_BINARY, name)
            continue
        texts.append(decode_text(raw, path, errors, report))
        size += len(raw)
    if found.unreadable:
        raise DataError(
            f"folder {folder} has what cannot be read: {_some(found.unreadable)}; "
            "make it readable, or move it away"
        )
    if not texts:
        raise DataError(
            f"folder {folder} must hold text files ({', '.join(SUFFIXES)}) or records "
            f"({', '.join(_RECORDS)}), found none; {found.said_of_rest()}"
        )
    report(f"folder {printable(str(folder))}: took {_counted(texts)}, {size:,} bytes; {found.said_of_rest()}")
    return texts, False


def _counted(files: list) -> str:
    return f"{len(files):,} file{'s' * (len(files) > 1)}"


def _chosen(found: _Found, folder: Path, kind: str) -> tuple[list[Path], bool]:
    """The files to take, and whether they are records; the others go to what is left out."""
    texts = [each for each in found.files if each.suffix.lower() in SUFFIXES]
    texts = [each for each in texts if kind == "text" or not kind_of(each)]
    records = [each for each in found.files if kind_of(each) and kind in ("auto", kind_of(each))]
    as_text = kind == "text" or (kind == "auto" and bool(texts))
    taken = texts if as_text else records
    if others := [str(each.relative_to(folder)) for each in found.files if each not in set(taken)]:
        found.left_out[_OTHER] = sorted([*found.left_out.get(_OTHER, []), *others])
    return taken, not as_text


def read_file(path: Path, errors: str, report: Callable[[str], None]) -> str:
    """Return the text of a file, whatever its name.

    Raises:
        DataError: it cannot be read or decoded, or is binary.
    """
    try:
        raw = _read_bytes(path)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from None
    return decode_file(raw, path, errors, report)


def decode_file(raw: bytes, path: Path, errors: str, report: Callable[[str], None]) -> str:
    """Return the text of a whole file's bytes, as `decode_text` has it; DataError if it is binary."""
    if _is_binary(raw):
        raise DataError(
            f"{path} must be text, but has zero bytes, as binary files have, and UTF-16 without its mark; "
            "convert it to UTF-8"
        )
    return decode_text(raw, path, errors, report)


def decode_text(raw: bytes, path: Path, errors: str, report: Callable[[str], None]) -> str:
    """Return bytes as text: UTF-16 and UTF-32 where a byte-order mark says so, else UTF-8.

    Args:
        raw: all of a file.
        path: names it in messages.
        errors: "strict" refuses bytes that are none; "replace" puts U+FFFD in their place and reports how
            many.
        report: gets one line a remark.

    Raises:
        DataError: the bytes are no such text.
    """
    encoding = encoding_of(raw)
    name = encoding.removesuffix("-sig").upper()
    if name != "UTF-8":
        report(f"{printable(str(path))}: read as {name}, which its mark says it is")
    try:
        return raw.decode(encoding)
    except UnicodeDecodeError as error:
        if errors == "strict":
            raise DataError(
                f"{path} must be {name} text, but byte {error.start} (0x{error.object[error.start]:02x}) is "
                "not; convert it, or allow U+FFFD in its place with errors = replace"
            ) from None
    text, kept = raw.decode(encoding, "replace"), raw.decode(encoding, "ignore")
    replaced = text.count("\ufffd") - kept.count("\ufffd")
    report(f"{printable(str(path))}: {replaced} stretches of bytes were not {name} and became U+FFFD")
    return text


def encoding_of(raw: bytes) -> str:
    """Return Python's name of the encoding that a byte-order mark says, without one UTF-8's."""
    return next((name for mark, name in _MARKS.items() if raw.startswith(mark)), "utf-8")


@contextmanager
def unpacked(source: BinaryIO) -> Iterator[Stream]:
    """Yield the bytes of a file, decompressed where they are gzip; its errors are OSError, EOFError,
    zlib.error.
    """
    buffered = source if isinstance(source, io.BufferedReader) else io.BufferedReader(source)  # type: ignore
    if not buffered.peek(2).startswith(_GZIP):
        yield buffered
        return
    with gzip.GzipFile(fileobj=buffered) as stream:
        yield stream


def printable(name: str) -> str:
    """Return a name of one line, with nothing in it that a terminal obeys."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in name)


def _some(names: list[str]) -> str:
    more = [f"and {len(names) - _NAMED:,} more"] if len(names) > _NAMED else []
    return ", ".join([*map(printable, names[:_NAMED]), *more])


def _walk(folder: Path) -> _Found:
    """The files of text and of records below a folder, each once: by its own name, or else by that of a link
    to it.
    """
    found, seen = _Found(), set()
    own, linked = deque([folder]), deque()
    files: tuple[list, list] = ([], [])
    while own or linked:
        directory = own.popleft() if own else linked.popleft()
        try:
            if _identity(directory) in seen:
                found.leave_out(_AGAIN, f"{directory.relative_to(folder)}/")
                continue
            seen.add(_identity(directory))
            names = sorted(os.listdir(directory))
        except OSError as error:
            found.unreadable.append(f"{directory.relative_to(folder)} ({error.strerror})")
            continue
        for path in (directory / name for name in names):
            name, is_link = str(path.relative_to(folder)), path.is_symlink()
            if path.name.startswith("."):
                found.leave_out(_HIDDEN, name)
                continue
            try:
                mode = path.stat().st_mode
            except OSError as error:
                if is_link and not isinstance(error, PermissionError):
                    found.leave_out(_NOWHERE, name)
                else:
                    found.unreadable.append(f"{name} ({error.strerror})")
                continue
            if stat.S_ISDIR(mode):
                (linked if is_link else own).append(path)
            elif path.suffix.lower() not in SUFFIXES and not kind_of(path):
                found.leave_out(_OTHER, name)
            elif not stat.S_ISREG(mode):
                found.leave_out(_STRANGE, name)
            else:
                files[is_link].append(path)
    for path in (*sorted(files[0]), *sorted(files[1])):
        if _identity(path) in seen:
            found.leave_out(_AGAIN, str(path.relative_to(folder)))
        else:
            seen.add(_identity(path))
            found.files.append(path)
    found.files.sort()
    return found


def _identity(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_dev, status.st_ino


def _read_bytes(path: Path) -> bytes:
    raw = path.read_bytes()
    if not raw.startswith(_GZIP):
        return raw
    try:
        return gzip.decompress(raw)
    except (EOFError, zlib.error) as error:  # gzip's own errors are OSErrors
        raise OSError(str(error)) from None


def _is_binary(raw: bytes) -> bool:
    """Whether there are zero bytes, where no mark says that they belong to letters."""
    wide = raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE, codecs.BOM_UTF32_BE))
    return not wide and b"\0" in raw[:_BEGINNING]
