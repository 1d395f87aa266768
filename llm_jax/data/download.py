"""One file over HTTPS: pinned by its SHA-256, resumed where it broke off, in place only when whole."""

import hashlib
import http.client
import os
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from llm_jax.base.bars import shown
from llm_jax.base.errors import DataError
from llm_jax.base.files import held_file, remove_left

CHUNK = 1 << 16
TIMEOUT_SECONDS = 20


class Source(NamedTuple):
    """Where a file is and what it must be."""

    url: str
    sha256: str


def download(
    source: Source,
    target: Path,
    report: Callable[[str], None],
    open_url: Callable[..., Any] = urllib.request.urlopen,
) -> Path:
    """Give `target`, downloaded if it is not there yet.

    Args:
        source: address and digest.
        target: where the file belongs; a file with another digest there is refused.
        report: gets one line a remark.
        open_url: as `urllib.request.urlopen`.

    Raises:
        DataError: no network, another content than the pinned one, or a folder that cannot be written.
    """
    part = target.with_name(target.name + ".part")
    try:
        if target.exists():
            remove_left(target.parent, part.name)
            if _digest(target) == source.sha256:
                return target
            raise DataError(
                f"{target} must be the file with SHA-256 {source.sha256}; delete it to download it again"
            )
    except OSError as error:
        raise DataError(f"{target} cannot be read: {error.strerror}") from None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with held_file(part) as own:
            report(f"downloading {source.url}")
            _fetch(source.url, own, open_url)
            if (got := _digest(own)) != source.sha256:
                own.unlink()
                raise DataError(f"{source.url} must have SHA-256 {source.sha256}, got {got}; it was not kept")
            os.replace(own, target)
    except (urllib.error.URLError, http.client.HTTPException, OSError) as error:
        reason = getattr(error, "reason", error)
        raise DataError(
            f"{source.url} could not be downloaded ({reason}); try again (it resumes), "
            "or give the path of a local text file"
        ) from None
    remove_left(target.parent, part.name)
    return target


def _fetch(url: str, part: Path, open_url: Callable[..., Any]) -> None:
    have = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        answer = open_url(request, timeout=TIMEOUT_SECONDS)
    except urllib.error.HTTPError as error:
        if error.code == 416:  # Nothing is left to send: the part is whole, or wrong, which its digest tells.
            return
        raise
    expected, received = int(answer.headers.get("Content-Length") or 0), 0
    mode = "ab" if have and answer.status == 206 else "wb"
    with answer, part.open(mode) as file, shown(part.stem, expected or None) as told:
        while chunk := answer.read(CHUNK):
            file.write(chunk)
            received += len(chunk)
            told(len(chunk))
        if received < expected:
            raise OSError(f"the connection ended after {received} of {expected} bytes")


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
