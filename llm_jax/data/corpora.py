"""Text by name or by path: embedded texts, pinned downloads, files and folders (see `text_files`), records
(see `records`), and standard input.
"""

import difflib
import hashlib
import re
import stat
import sys
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from llm_jax.base.errors import DataError, UserError
from llm_jax.config.cleaning import CleaningConfig
from llm_jax.config.run import DataConfig
from llm_jax.data.cleaning import clean_documents
from llm_jax.data.download import Source, download
from llm_jax.data.records import Form, read_records
from llm_jax.data.text_files import Stream, decode_file, kind_of, printable, read_file, read_folder, unpacked
from llm_jax.tokenization.protocol import utf8

# Files of data/, which the wheel has in corpora/.
EMBEDDED = {
    "sales_handbook": "sales_handbook.txt",
    "tinyshakespeare": "tinyshakespeare.txt.gz",
    "corner_shop_zh": "corner_shop_zh.txt",
}
STANDARD_INPUT = ("-", "/dev/stdin")
STDIN = "stdin"  # its name in stores and runs
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
_JSON_OBJECT = re.compile(rb'(\xef\xbb\xbf)?\s*\{\s*"')  # how a line of JSONL begins
_LONGEST_NAME = 120  # bytes: a file name has 255, and a store adds to this one


class Corpus(NamedTuple):
    """Texts and where they came from."""

    name: str  # short, fit for a file name
    documents: Sequence[str]  # one, those of a folder's files, or those of records
    of_records: bool = False

    @property
    def text(self) -> str:
        """All documents, joined by line ends."""
        return "\n".join(self.documents)


def read_corpus(
    corpus: str, *, downloads: Path, errors: str, report: Callable[[str], None], form: Form = Form()
) -> Corpus:
    """Read a corpus by name, a file of text or of records, or those of a folder in the order of their paths.

    Args:
        corpus: one of NAMES, or a path, or "-" for standard input, which a process reads once.
        downloads: folder in which downloaded corpora are kept.
        errors: "strict" refuses bytes that are not UTF-8, or not what a mark says; "replace" puts U+FFFD in
            their place and reports how many.
        report: gets one line a remark.
        form: what it is, and which column of records has the text.

    Raises:
        DataError: it does not exist, cannot be read, is empty, or is no text.
        UserError: a library is missing, or text_column is given for what has no columns.
    """
    if corpus in STANDARD_INPUT:
        if sys.stdin and sys.stdin.isatty():
            report("the text is read from standard input, up to Ctrl-D on a line of its own")
        found, remarks = _standard_input(errors, form)
        for remark in remarks:
            report(remark)
        return _checked(found, "standard input", form)
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
    records = False
    if is_folder:
        read = lambda each, kind: _file_of_records(each, kind, form, errors, report)  # noqa: E731
        documents, records = read_folder(path, form.format, read, errors, report)
    elif (kind := kind_of(path) if form.format == "auto" else form.format) not in ("", "text"):
        documents, records = _file_of_records(path, kind, form, errors, report), True
    else:
        documents = [read_file(path, errors, report)]
    return _checked(Corpus(_short_name(path), documents, records), str(path), form)


def configured_corpus(config: DataConfig, report: Callable[[str], None]) -> Corpus:
    """Return the corpus that a configuration names, cleaned; arguments and errors are those of
    `read_corpus`.
    """
    corpus = read_corpus(
        config.corpus,
        downloads=config.downloads,
        errors=config.errors,
        report=report,
        form=Form(config.format, config.text_column, config.text_limit_mb * 1_000_000),
    )
    if config.clean == CleaningConfig():
        return corpus
    documents = clean_documents(corpus.documents, config.clean, report)
    if not documents:
        raise DataError(f"cleaning must leave some text of {config.corpus}, but left none; see data.clean")
    return corpus._replace(documents=documents)


def _checked(corpus: Corpus, name: str, form: Form) -> Corpus:
    if not any(document.strip() for document in corpus.documents):
        got = "only white space" if any(corpus.documents) else "nothing"
        raise DataError(f"corpus {name} must hold text, got {got}")
    if form.text_column and not corpus.of_records:
        raise UserError(f"text_column is for records, and {name} is text; leave it out, or set data.format")
    return corpus


def _file_of_records(
    path: Path, kind: str, form: Form, errors: str, report: Callable[[str], None]
) -> list[str]:
    with _reading(str(path)), path.open("rb") as file, unpacked(file) as stream:
        return read_records(stream, str(path), kind, form, errors, report)


@contextmanager
def _reading(name: str) -> Iterator[None]:
    """Around what reads a file: what the system or gzip says against it becomes a DataError."""
    try:
        yield
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"{printable(name)} cannot be read: {reason}") from None


@lru_cache(maxsize=1)
def is_given_input() -> bool:
    """Return whether standard input is no terminal and has something; the first answer stands."""
    given: Any = sys.stdin
    return given is not None and not given.isatty() and bool(given.buffer.peek(1))


@lru_cache(maxsize=1)
def _standard_input(errors: str, form: Form) -> tuple[Corpus, list[str]]:
    """The corpus, and what is to be said of it: it can be read only once."""
    remarks: list[str] = []
    source: BinaryIO | None = sys.stdin and sys.stdin.buffer
    if source is None:
        raise DataError("standard input is closed; give the path of a text")
    with _reading("standard input"), unpacked(source) as stream:
        kind, name = form.format, "standard input"
        if kind == "auto":
            kind = _kind_of_stream(stream)
            if kind != "text":
                remarks.append(
                    f"standard input: read as {kind}, which it looks like; with format = text as it is"
                )
        if kind != "text":
            texts = read_records(stream, name, kind, form, errors, remarks.append)
            return Corpus(STDIN, texts, True), remarks
        raw = stream.read(form.limit + 1)
        if len(raw) > form.limit:
            raw = raw[: raw.rfind(b"\n", 0, form.limit) + 1] or raw[: form.limit]
            remarks.append(
                f"warning: of standard input only the first {len(raw) / 1e6:.1f} MB are taken; text_limit_mb "
                f"({form.limit // 1_000_000}) leaves out the rest"
            )
        return Corpus(STDIN, [decode_file(raw, Path(name), errors, remarks.append)]), remarks


def _kind_of_stream(stream: Stream) -> str:
    """What bytes without a name are: Parquet by its mark, JSONL by how its first line begins, else text."""
    first = stream.peek(64)
    return "parquet" if first.startswith(b"PAR1") else "jsonl" if _JSON_OBJECT.match(first) else "text"


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
    """Return SHA-256 of a text's UTF-8 bytes."""
    return hashlib.sha256(text.encode()).hexdigest()


def documents_digest(documents: Sequence[str]) -> str:
    """Return SHA-256 of texts and of where one ends and the next begins."""
    digest = hashlib.sha256()
    for document in documents:
        raw = utf8(document)
        digest.update(b"%d:" % len(raw))
        digest.update(raw)
    return digest.hexdigest()
