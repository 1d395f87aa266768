"""Going on with a run: what its checkpoint says beside what it shall be now, what may differ, and the record
of what did.

A checkpoint's "changes" are the truth (see `changes`); RUN/changes.jsonl shows them to everyone.
"""

import json
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from llm_jax.base.errors import CheckpointError, UserError
from llm_jax.base.files import made_whole
from llm_jax.config.changes import History, entry, of_kind, said
from llm_jax.config.load import changed, config_from_dict
from llm_jax.config.run import Config
from llm_jax.runs.data import Materials
from llm_jax.runs.init_from import recorded_origin, require_same_weights
from llm_jax.training.schedule import make_horizon, make_schedule

CHANGES = "changes.jsonl"


def require_same_run(
    about: Mapping[str, Any], config: Config, data_fingerprint: str, *, agreed: bool, longer: bool = False
) -> None:
    """Refuse to go on with a run that its newest checkpoint says is another one.

    Args:
        about: what that says of itself.
        config: what the run shall be now.
        data_fingerprint: of its tokens now.
        agreed: whether what changes the steps to come alone may differ.
        longer: whether `train.steps` may be more than the run had.

    Raises:
        CheckpointError: it was trained on other data, or `train.init_from` holds other weights now.
        UserError: it has another configuration; the message has the differences.
    """
    run = config.train.run
    changes = changed(config_from_dict(about["config"], str(run)), config)
    fixed, future = of_kind(changes, "fixed"), of_kind(changes, "future")
    if about["data_fingerprint"] != data_fingerprint and not any(name.startswith("data.") for name in fixed):
        raise CheckpointError(f"{run} was trained on another text; give that one, or another --train.run")
    if fixed:
        raise UserError(
            f"{run} holds a run of another configuration ({said(fixed)}); give another --train.run"
        )
    before, after = future.get("train.steps", (0, 0))
    if future.keys() == {"train.steps"} and after > before and not agreed:
        if not longer:
            raise UserError(
                f"{run} holds a run of another configuration (train.steps: {before} -> {after}); give "
                f"--train.steps {before} to go on with it, more to extend it, or another --train.run"
            )
    elif future and not agreed:
        raise UserError(
            f"{run} holds a run of another configuration ({said(future)}); add --continue-with-changes to go "
            f"on so after step {about['step']}, or give another --train.run"
        )
    if config.train.steps < about["step"]:
        raise UserError(
            f"train.steps ({config.train.steps}) must not be below {about['step']}, the steps that {run} has "
            "done"
        )
    origin = recorded_origin(about)
    if origin and "train.init_from" in changes:
        require_same_weights(config.train.init_from, origin)


def went_on(material: Materials, about: Mapping[str, Any], batch: int) -> tuple[Materials, list[str]]:
    """Return the materials with the run's changes, this start's among them, and lines that say what these
    are.

    Args:
        material: under the configuration as it shall be now.
        about: what the checkpoint says of itself from which the run goes on.
        batch: index of the next batch.
    """
    before = config_from_dict(about["config"], str(material.config.train.run))
    # The folder of a run is known by where it is given.
    changes = {
        name: values for name, values in changed(before, material.config).items() if name != "train.run"
    }
    history = list(about.get("changes", []))
    if not changes:
        return material._replace(history=history), []
    now = datetime.now(UTC).isoformat(timespec="seconds")
    history.append(entry(about["step"], batch, changes, time=now, command=sys.argv))
    lines = [f"changed after step {about['step']}: {said(changes)}"]
    if about["step"] and before.train.steps < material.config.train.steps:
        lines.append(f"extended to {material.config.train.steps:,} steps; the optimizer's state is kept")
    if about["step"] < material.config.train.steps:
        lines += _rates(before, material.config, about["step"])
    return material._replace(history=history), lines


def write_history(run: Path, history: History) -> None:
    """Write RUN/changes.jsonl, a line for each start that changed something; OSError as the file system has
    it.
    """
    path = run / CHANGES
    if history:
        with made_whole(path) as part:
            part.write_text("".join(json.dumps(line) + "\n" for line in history), encoding="utf-8")
    else:
        path.unlink(missing_ok=True)


def told(history: Sequence[Mapping[str, Any]]) -> list[tuple[int, str]]:
    """Return (the last step before it, what changed) of each line of a run's changes.jsonl."""
    return [(line["step"], said(line["changes"])) for line in history]


def _rates(before: Config, after: Config, step: int) -> list[str]:
    """What the learning rate does from here on, where the changes touch it."""
    then, now = (
        np.asarray(make_schedule(config.optim, make_horizon(config.optim, config.train.steps))(counts))
        for config, counts in (
            (before, np.arange(max(0, step - 1), step + 1)),
            (after, np.arange(step, after.train.steps)),
        )
    )
    steps = after.train.steps
    if now[0] == then[-1] and before.train.steps == steps:
        return []
    highest = step + 1 + int(np.flatnonzero(now == now.max())[-1])
    line = f"learning rate: {then[0]:.3g} in step {step}, " if step else "learning rate: "
    line += f"{now[0]:.3g} in step {step + 1}"
    if now.max() > now[0]:
        line += f", up to {now.max():.3g}"
    line += f"; it falls after step {highest}" if now[-1] < now.max() else "; it stays"
    if now[-1] < now.max():
        line += f" to {now[-1]:.3g} in step {steps}: {after.optim.schedule} as if planned over {steps} steps"
    return [line]
