"""How a run starts: what it says first, and RUN/environment.json: what the last start had under it, and under
"earlier" what those before had.

Bits are equal only where nothing of `DECIDING` differs, so a start compares itself with the one before.
"""

import json
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from llm_jax.base.environment import environment
from llm_jax.base.files import made_whole
from llm_jax.base.json_lines import read_object
from llm_jax.base.tree import State, count_parameters
from llm_jax.runs.data import Materials
from llm_jax.training.observers import warn

FILE = "environment.json"
# What numbers depend on, beside versions: those of an environment as `base.environment` gives them.
DECIDING = ("devices", "processor", "threads", "variables")


def opening(material: Materials, state: State, baselines: Mapping[str, float]) -> Iterator[str]:
    """Yield what is said before the first step."""
    config, start = material.config, int(state["counters"]["step"])
    yield f"model: {count_parameters(state['params']):,} parameters, {config.model.vocab_size:,} token ids"
    if baselines:
        shown = ", ".join(f"{name} {nats:.3f}" for name, nats in baselines.items())
        yield f"baselines, {material.task.unit}: {shown}"
    if start:
        yield f"continuing {config.train.run} at step {start}"
    elif material.origin:
        yield f"starting from {config.train.init_from}, step {material.origin.step}"
    if own := material.own.names():
        yield f"with the program's own {', '.join(own)}"


def read_start(run: Path) -> dict[str, Any]:
    """Return the entry of a run's last start; empty where there is none that can be read."""
    return read_object(run / FILE)


def note_start(run: Path, step: int) -> None:
    """Write down what this start runs on, and say what is not as at the last."""
    now = environment()
    if step and (found := deviations(read_start(run), now)):
        warn(
            f"changed since the last start: {'; '.join(found)}. Equal bits are promised for the same "
            "versions, kind of device and number of threads"
        )
    add_start(run, step, now)


def add_start(run: Path, step: int, environment: Mapping[str, Any]) -> None:
    """Put this start, at a step, before those that were; OSError as the file system has it."""
    last = read_start(run)
    earlier = last.pop("earlier", [])
    earlier = [*(earlier if isinstance(earlier, list) else []), *([last] if last else [])]
    now = datetime.now(UTC).isoformat(timespec="seconds")
    entry = {"step": step, "time": now, **environment, "earlier": earlier}
    with made_whole(run / FILE) as part:
        part.write_text(json.dumps(entry, indent=2) + "\n", encoding="utf-8")


def deviations(last: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Return 'name before -> now' for all on which equal bits depend and in which two starts differ; what one
    of them did not record is passed over.
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
