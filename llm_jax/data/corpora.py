"""Text by name or by path: embedded texts, pinned downloads, files and folders (see `text_files`)."""

import difflib
import hashlib
import stat
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from llm_jax.base.errors import DataError
from llm_jax.data.download import Source, download
from llm_jax.data.text_files import read_file, read_folder

# Files of data/, which the wheel has in corpora/.
EMBEDDED = {
    "sales_handbook": "sales_handbook.txt",
    "tinyshakespeare": "tinyshakespeare.txt.gz",
    "corner_shop_zh": "corner_shop_zh.txt",
}
DOWNLOADS = {
    "sales_textbook": Source(
        "https://huggingface.co/datasets/goendalf666/sales-textbook_for_convincing_and_selling/resolve/main/sales_textbook.txt",
        "1994f20f5becd3f0b3d7a632e5a68513cc38cf6c9737a9f38243f1b652e962da",
    ),
    "the_verdict": Source(
        "https://raw.githubusercontent.com/rasbt/LLMs-from-scratch/main/ch02/01_main-chapter-code/the-verdict.txt",
        "b41e41a68f0398a3154ae69e2e4c0e2694e17fe0d66730536837f1b01935b31f",
    ),
}
NAMES = (*EMBEDDED, *DOWNLOADS)
_LONGEST_NAME = 120  # bytes: a file name has 255, and a store adds to this one


class Corpus(NamedTuple):
    """A text and where it came from."""

    name: str  # short, fit for a file name
    text: str


def read_corpus(corpus: str, *, downloads: Path, errors: str, report: Callable[[str], None]) -> Corpus:
    """Reads a corpus by name, or a text file, or all text files of a folder in the order of their paths.

    Args:
        corpus: one of NAMES, or a path.
        downloads: folder in which downloaded corpora are kept.
        errors: "strict" refuses bytes that are not UTF-8, or not what a mark says; "replace" puts U+FFFD in
            their place and reports how many.
        report: gets one line a remark.

    Raises:
        DataError: it does not exist, cannot be read, is empty, or is no text.
    """
    if corpus in NAMES:
        path = (
            _embedded_path(EMBEDDED[corpus])
            if corpus in EMBEDDED
            else download(DOWNLOADS[corpus], downloads / f"{corpus}.txt", report)
        )
    else:
        path = Path(corpus)
    try:
        is_folder = stat.S_ISDIR(path.stat().st_mode)
    except (FileNotFoundError, NotADirectoryError, ValueError):
        near = difflib.get_close_matches(corpus, [*NAMES, *map(str, _siblings(path))], n=1)
        hint = f"did you mean {near[0]}?" if near else f"the names are {', '.join(NAMES)}"
        raise DataError(
            f"corpus {corpus} must be a name or the path of a file or folder that exists; {hint}"
        ) from None
    except OSError as error:
        raise DataError(f"corpus {corpus} cannot be read: {error.strerror}") from None
    text = (read_folder if is_folder else read_file)(path, errors, report)
    if not text.strip():
        raise DataError(f"corpus {path} must hold text, got {'nothing' if not text else 'only white space'}")
    return Corpus(_short_name(path), text)


def _short_name(path: Path) -> str:
    """The name without its end, as a part of file names: no longer than they may be, and none that hides."""
    name = path.stem.removesuffix(".txt").lstrip(".")
    name = "".join(letter if letter.isprintable() else "_" for letter in name)
    return name.encode()[:_LONGEST_NAME].decode(errors="ignore") or "corpus"


def _embedded_path(file: str) -> Path:
    package = Path(__file__).resolve().parents[1]
    in_checkout, in_wheel = package.parent / "data" / file, package / "corpora" / file
    return in_checkout if in_checkout.exists() else in_wheel


def _siblings(path: Path) -> list[Path]:
    try:
        return list(path.parent.iterdir())
    except OSError:
        return []


def text_digest(text: str) -> str:
    """SHA-256 of a text's UTF-8 bytes."""
    return hashlib.sha256(text.encode()).hexdigest()
