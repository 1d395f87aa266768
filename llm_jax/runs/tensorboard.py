"""A run's numbers for TensorBoard, in the formats of tensorboardX.

Its own writer hands events to a thread through a queue, and waits for ever once that thread has died of a
full disk. So only its formats are used here: a record is written in one piece, at once, and a resumed run
takes out what was written after the step at which it goes on.
"""

import socket
import struct
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from llm_jax.base.files import made_whole

_FILES = "events.out.tfevents."
_HEAD, _TAIL = struct.Struct("<QI"), struct.Struct("<I")  # length and its checksum; checksum of the content


class Events:
    """A file of events, to which numbers are added.

    Args:
        path: made anew.
        format: modules of tensorboardX.
    """

    def __init__(self, path: Path, format: "_Format"):
        self._path, self._format = path, format
        self._append(format.event(file_version="brain.Event:2"))

    def write(self, step: int, numbers: Iterable[tuple[str, float | None]]) -> None:
        """Add the numbers of a step; one that is None was not measured and is left out."""
        summary = self._format.summary(
            value=[{"tag": tag, "simple_value": number} for tag, number in numbers if number is not None]
        )
        self._append(self._format.event(step=step, summary=summary))

    def close(self) -> None:
        """Do nothing: each record is whole."""

    def _append(self, event: Any) -> None:
        event.wall_time = time.time()
        record = frame(event.SerializeToString(), self._format.checksum)
        with self._path.open("ab", buffering=0) as file:
            end = file.seek(0, 2)
            if file.write(record) != len(record):
                file.truncate(end)  # Readers stop at half a record.
                raise OSError("No space left on device")


class _Format:
    """What is used of tensorboardX; ImportError where it is not installed."""

    def __init__(self) -> None:
        from tensorboardX.proto import event_pb2, summary_pb2  # pyright: ignore[reportMissingImports] - optional
        from tensorboardX.record_writer import masked_crc32c  # pyright: ignore[reportMissingImports]

        self.event: Any = event_pb2.Event  # pyright: ignore[reportAttributeAccessIssue] - made at run time
        self.summary: Any = summary_pb2.Summary  # pyright: ignore[reportAttributeAccessIssue]
        self.checksum: Any = masked_crc32c


def open_tensorboard(directory: Path, step: int) -> Events:
    """Open a new file of events beside those of earlier processes, which lose what came after `step`, and all
    at step 0.
    """
    format = _Format()
    directory.mkdir(exist_ok=True)
    for path in sorted(directory.glob(f"{_FILES}*")):
        if path.suffix == ".part":  # a killed process left it
            path.unlink()
        else:
            _forget_after(path, step, format)
    return Events(directory / f"{_FILES}{time.time_ns()}.{socket.gethostname()}", format)


def _forget_after(path: Path, step: int, format: _Format) -> None:
    """Takes events of later steps out of a file, and what is damaged with all that follows it."""
    records = list(records_of(path.read_bytes(), format.checksum)) if step else []
    kept = [record for record in records if format.event.FromString(record).step <= step]
    if len(kept) < 2:  # Every file begins with its version.
        path.unlink()
        return
    with made_whole(path) as part:
        part.write_bytes(b"".join(frame(record, format.checksum) for record in kept))


def frame(content: bytes, checksum: Any) -> bytes:
    """Return a record of a TFRecord file."""
    length = struct.pack("<Q", len(content))
    return length + _TAIL.pack(checksum(length)) + content + _TAIL.pack(checksum(content))


def records_of(content: bytes, checksum: Any) -> Iterator[bytes]:
    """Return the sound records at the beginning of a TFRecord file."""
    at = 0
    while at + _HEAD.size + _TAIL.size <= len(content):
        length, of_length = _HEAD.unpack_from(content, at)
        start, end = at + _HEAD.size, at + _HEAD.size + length
        if checksum(content[at : at + 8]) != of_length or end + _TAIL.size > len(content):
            return
        if _TAIL.unpack_from(content, end)[0] != checksum(content[start:end]):
            return
        yield content[start:end]
        at = end + _TAIL.size
