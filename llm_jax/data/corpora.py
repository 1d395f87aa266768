"""Text by name or by path: the embedded handbook, pinned downloads, files and folders (gzip too)."""

import difflib
import gzip
import hashlib
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from llm_jax.data.download import Source, download
from llm_jax.errors import DataError

EMBEDDED = "sales_handbook"
DOWNLOADS = {
    "sales_textbook": Source(
        "https://huggingface.co/datasets/goendalf666/sales-textbook_for_convincing_and_selling/resolve/main/sales_textbook.txt",
        "1994f20f5becd3f0b3d7a632e5a68513cc38cf6c9737a9f38243f1b652e962da",
    ),
    "tinyshakespeare": Source(
        "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt",
        "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed",
    ),
    "the_verdict": Source(
        "https://raw.githubusercontent.com/rasbt/LLMs-from-scratch/main/ch02/01_main-chapter-code/the-verdict.txt",
        "b41e41a68f0398a3154ae69e2e4c0e2694e17fe0d66730536837f1b01935b31f",
    ),
}
NAMES = (EMBEDDED, *DOWNLOADS)
SUFFIXES = (".txt", ".md", ".text", ".rst", ".gz")


class Corpus(NamedTuple):
    """A text and where it came from."""

    name: str  # short, fit for a file name
    text: str


def read_corpus(corpus: str, *, downloads: Path, errors: str, report: Callable[[str], None]) -> Corpus:
    """Reads a corpus by name, or a text file, or all text files of a folder in the order of their paths.

    Args:
        corpus: one of NAMES, or a path.
        downloads: folder in which downloaded corpora are kept.
        errors: "strict" refuses bytes that are not UTF-8; "replace" puts U+FFFD in their place and reports
            how many.
        report: gets one line a remark.

    Raises:
        DataError: it does not exist, cannot be read, is empty, or is not UTF-8.
    """
    if corpus in NAMES:
        path = (
            _embedded_path()
            if corpus == EMBEDDED
            else download(DOWNLOADS[corpus], downloads / f"{corpus}.txt", report)
        )
    else:
        path = Path(corpus)
    if not path.exists():
        near = difflib.get_close_matches(corpus, [*NAMES, *map(str, _siblings(path))], n=1)
        hint = f"did you mean {near[0]}?" if near else f"the names are {', '.join(NAMES)}"
        raise DataError(f"corpus {corpus} must be a name or the path of a file or folder that exists; {hint}")
    files = _text_files(path) if path.is_dir() else [path]
    text = "\n".join(_read_text(file, errors, report) for file in files)
    if not text.strip():
        raise DataError(f"corpus {path} must hold text, got {'nothing' if not text else 'only white space'}")
    return Corpus(path.stem.removesuffix(".txt") or "corpus", text)


def _embedded_path() -> Path:
    package = Path(__file__).resolve().parents[1]
    in_checkout, in_wheel = package.parent / "data", package / "corpora"
    return (
        next((d for d in (in_checkout, in_wheel) if (d / f"{EMBEDDED}.txt").exists()), in_wheel)
        / f"{EMBEDDED}.txt"
    )


def _siblings(path: Path) -> list[Path]:
    try:
        return list(path.parent.iterdir())
    except OSError:
        return []


def _text_files(folder: Path) -> list[Path]:
    files = sorted(path for path in folder.rglob("*") if path.suffix in SUFFIXES and path.is_file())
    if not files:
        raise DataError(f"folder {folder} must hold text files ({', '.join(SUFFIXES)}), found none")
    return files


def _read_text(path: Path, errors: str, report: Callable[[str], None]) -> str:
    try:
        raw = path.read_bytes()
        if raw[:2] == b"\x1f\x8b":
            raw = gzip.decompress(raw)
    except (OSError, EOFError, zlib.error) as error:  # gzip's own errors are OSErrors
        raise DataError(f"{path} cannot be read: {error}") from None
    raw = raw.removeprefix(b"\xef\xbb\xbf")
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        if errors == "strict":
            raise DataError(
                f"{path} must be UTF-8 text, but byte {error.start} (0x{raw[error.start]:02x}) is not; "
                "convert it, or allow U+FFFD in its place with errors = replace"
            ) from None
    text = raw.decode("utf-8", errors="replace")
    already = raw.count("\ufffd".encode())
    replaced = text.count("\ufffd") - already
    report(f"{path}: {replaced} stretches of bytes were not UTF-8 and became U+FFFD")
    return text


def text_digest(text: str) -> str:
    """SHA-256 of a text's UTF-8 bytes."""
    return hashlib.sha256(text.encode()).hexdigest()
