"""The readable files of a run, read as a stranger's: what is not as it must be is left out, never believed.

RUN/metrics.jsonl and RUN/samples.jsonl hold an object a line, in UTF-8, ended by "\\n" alone: a text may hold
the other characters that end a line. Neither jax nor numpy is imported.
"""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

_LARGEST = 1e300  # of a number that is drawn: sums and squares of what is larger have no float
_STEPS = 2**31  # counters are int32
_DEEPEST = 8  # levels of nesting; a line of ours has three


def read_lines(
    path: Path, *, needs: str | None = None, report: Callable[[str], None] = lambda _: None
) -> list[dict[str, Any]]:
    """Return the sound entries of a run's file of JSON lines, in its order; none where there is no file.

    Every entry has "step", a whole number. What ends in "_norms" is a dict of numbers and of lists of them,
    "text" is a text, and all else a number; any number may be None.

    Args:
        path: the file.
        needs: a key that an entry must have besides.
        report: gets one line where something was left out, or the file cannot be read.
    """
    try:
        lines = split_lines(path.read_bytes())
    except FileNotFoundError:
        return []
    except OSError as error:
        report(f"{path} cannot be read: {error.strerror}")
        return []
    entries = [entry_of(line) for line in lines]
    sound = [entry for entry in entries if entry is not None and (needs is None or needs in entry)]
    if lost := len(entries) - len(sound):
        report(f"{left_out(lost)} of {path}")
    return sound


def read_history(path: Path) -> list[dict[str, Any]]:
    """Return the sound entries of a run's list of changes: each has "step", a whole number, and "changes", a
    dict of pairs; none where it cannot be read.
    """
    try:
        entries = [_json(line) for line in split_lines(path.read_bytes())]
    except OSError:
        return []
    return [entry for entry in entries if _is_change(entry)]


def split_lines(content: bytes) -> list[bytes]:
    """Return the lines of a file of JSON lines, without their ends; blank ones are none."""
    return [line for line in content.split(b"\n") if line.strip()]


def left_out(count: int) -> str:
    """Return what is said of damaged lines."""
    return f"{count} damaged {'line is' if count == 1 else 'lines are'} left out"


def entry_of(line: bytes) -> dict[str, Any] | None:
    """Return the entry that a line holds, None for a line that is damaged or never was one."""
    values = _json(line)
    if not isinstance(values, dict) or not _is_whole(values.get("step"), _STEPS):
        return None
    return values if all(_is_sound(name, value) for name, value in values.items()) else None


def _is_text(value: Any) -> bool:
    """Whether a value is a text that any file can hold, without halves of characters."""
    return isinstance(value, str) and value.encode("utf-8", "ignore").decode() == value


def read_object(path: Path) -> dict[str, Any]:
    """Return the object in a run's JSON file; empty where there is none that can be read."""
    try:
        values = _json(path.read_bytes())
    except OSError:
        return {}
    return values if isinstance(values, dict) else {}


def scalars(values: dict[str, Any] | list[Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    """Return every number in nested values under its path, as 'grad_norms/blocks/0'."""
    for name, value in values.items() if isinstance(values, dict) else enumerate(values):
        if isinstance(value, dict | list):
            yield from scalars(value, f"{prefix}{name}/")
        else:
            yield f"{prefix}{name}", value


def _json(content: bytes) -> Any:
    """The value that JSON in UTF-8 holds; None for what is none, nests too deep, or has no finite numbers."""
    try:
        value = json.loads(content.decode("utf-8"), parse_constant=_refuse)
        json.dumps(value, allow_nan=False)  # 1e999
    except (ValueError, RecursionError):
        return None
    return value if _depth(value, _DEEPEST) else None


def _refuse(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def _depth(value: Any, most: int) -> bool:
    """Whether a value has at most so many levels."""
    items = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return most > 0 and all(_depth(item, most - 1) for item in items)


def _is_sound(name: str, value: Any) -> bool:
    if name == "text":
        return _is_text(value)
    if name.endswith("_norms") and value is not None:
        if not isinstance(value, dict):
            return False
        flat = [item for part in value.values() for item in (part if isinstance(part, list) else [part])]
        return all(map(_is_number, flat))
    return _is_number(value)


def _is_change(entry: Any) -> bool:
    if not isinstance(entry, dict) or not _is_whole(entry.get("step"), _STEPS):
        return False
    changes = entry.get("changes")
    return isinstance(changes, dict) and all(
        isinstance(pair, list) and len(pair) == 2 for pair in changes.values()
    )


def _is_number(value: Any) -> bool:
    if value is None:
        return True
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= _LARGEST


def _is_whole(value: Any, below: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < below
