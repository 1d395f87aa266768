"""RUN/environment.json: what the last start of a run had under it, and under "earlier" what those before had.

Bits are equal only where nothing of `DECIDING` differs, so a start compares itself with the one before.
"""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from llm_jax.base.files import made_whole
from llm_jax.base.json_lines import read_object

FILE = "environment.json"
# What numbers depend on, beside versions: those of an environment as `base.environment` gives them.
DECIDING = ("devices", "processor", "threads", "variables")


def read_start(run: Path) -> dict[str, Any]:
    """The entry of a run's last start; empty where there is none that can be read."""
    return read_object(run / FILE)


def add_start(run: Path, step: int, environment: Mapping[str, Any]) -> None:
    """Puts this start, at a step, before those that were; OSError as the file system has it."""
    last = read_start(run)
    earlier = last.pop("earlier", [])
    earlier = [*(earlier if isinstance(earlier, list) else []), *([last] if last else [])]
    now = datetime.now(UTC).isoformat(timespec="seconds")
    entry = {"step": step, "time": now, **environment, "earlier": earlier}
    with made_whole(run / FILE) as part:
        part.write_text(json.dumps(entry, indent=2) + "\n", encoding="utf-8")


def deviations(last: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """'name before -> now' for all on which equal bits depend and in which two starts differ; what one of
    them did not record is passed over.
    """
    before, after = _deciding(last), _deciding(now)
    return [
        f"{name} {before[name]} -> {after[name]}"
        for name in before
        if name in after and before[name] != after[name]
    ]


def _deciding(environment: Mapping[str, Any]) -> dict[str, str]:
    versions = environment.get("versions")
    facts = {name: str(each) for name, each in versions.items()} if isinstance(versions, dict) else {}
    for name in DECIDING:
        value = environment.get(name)
        if isinstance(value, list):  # How many devices there are says nothing of the one that is used.
            facts[name] = ", ".join(sorted(set(map(str, value))))
        elif isinstance(value, dict):
            facts[name] = " ".join(f"{key}={each}" for key, each in sorted(value.items())) or "none"
        elif value is not None:
            facts[name] = str(value)
    return facts
