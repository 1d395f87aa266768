"""Proof of exact resume: a run straight through beside one that is killed and started again, compared bit by
bit.
"""

import dataclasses
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from llm_jax.base.errors import CheckpointError
from llm_jax.base.json_lines import read_lines
from llm_jax.checkpoints.step_files import checkpoint_directory, saved_steps
from llm_jax.config.effects import unmet, values_of
from llm_jax.config.run import Config


def compare_runs(config: Config, folder: Path, kill_after: int) -> dict[str, Any]:
    """Train twice in subprocesses, once with a SIGKILL after step `kill_after`, and counts what differs.

    Args:
        config: the run; its `train.run` is replaced.
        folder: where both runs are made.
        kill_after: a step; the kill comes once it is logged.

    Returns:
        "differing_leaves" (names), "leaves", "differing_losses" (steps), "losses", "killed_after" and
        "resumed_at" (steps).
    """
    straight, killed = (place(config, folder / name) for name in ("straight", "killed"))
    finish(start(straight))
    process = start(killed)
    while last_logged_step(killed.train.run) < kill_after and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    killed_after = last_logged_step(killed.train.run)
    resumed_at = max(saved_steps(checkpoint_directory(killed.train.run)))
    if process.returncode != -signal.SIGKILL or resumed_at >= config.train.steps:
        raise CheckpointError(
            f"the run was to be killed after step {kill_after}, but ended before; give more steps"
        )
    finish(start(killed))
    return differences(straight, killed) | {"killed_after": killed_after, "resumed_at": resumed_at}


def last_logged_step(run: Path) -> int:
    """Return the last step in a run's metrics.jsonl; -1 without one."""
    return next((entry["step"] for entry in reversed(read_lines(run / "metrics.jsonl"))), -1)


def short_run(config: Config, steps: int, accumulation_steps: int | None) -> Config:
    """Return the configuration cut to `steps`, with every step logged and four saves."""
    train = dataclasses.replace(
        config.train,
        steps=steps,
        eval_interval=steps,
        save_interval=max(1, steps // 4),
        log_interval=1,
        sample_tokens=0,
        accumulation_steps=accumulation_steps or config.train.accumulation_steps,
    )
    optim = dataclasses.replace(config.optim, warmup_steps=min(config.optim.warmup_steps, steps))
    return dataclasses.replace(config, train=train, optim=optim)


def place(config: Config, run: Path) -> Config:
    """Return the configuration with another run directory."""
    return dataclasses.replace(config, train=dataclasses.replace(config.train, run=run))


def start(config: Config) -> subprocess.Popen[str]:
    """Return a process that trains with this configuration: all of it that has an effect."""
    values = values_of(config)
    words = [
        f"--{name}={str(value).lower() if isinstance(value, bool) else value}"
        for name, value in values.items()
        if not unmet(name, values)
    ]
    return subprocess.Popen(
        [sys.executable, "-m", "llm_jax.train", *words],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
    )


def finish(process: subprocess.Popen[str]) -> None:
    """Wait for a process that trains; CheckpointError, with what it wrote, when it fails."""
    _, errors = process.communicate()
    if process.returncode:
        raise CheckpointError(
            f"a training process ended with status {process.returncode}: {errors.strip()[-300:]}"
        )


def differences(straight: Config, killed: Config) -> dict[str, Any]:
    """Return what differs, in any bit, between the newest states and the losses of two runs."""
    import jax
    import numpy as np

    from llm_jax.checkpoints.checksums import leaf_names
    from llm_jax.checkpoints.reader import read_state

    states = [read_state(checkpoint_directory(config.train.run)) for config in (straight, killed)]
    names = leaf_names(states[0])
    pairs = zip(names, *(map(np.asarray, jax.tree.leaves(state)) for state in states), strict=True)
    odd = [name for name, a, b in pairs if a.dtype != b.dtype or a.tobytes() != b.tobytes()]
    losses = [_losses(config.train.run) for config in (straight, killed)]
    steps = sorted(losses[0].keys() | losses[1].keys())
    return {
        "leaves": len(names),
        "differing_leaves": odd,
        "losses": len(steps),
        "differing_losses": [step for step in steps if losses[0].get(step) != losses[1].get(step)],
    }


def _losses(run: Path) -> dict[int, float]:
    entries = read_lines(run / "metrics.jsonl")
    return {entry["step"]: entry["train_loss"] for entry in entries if "train_loss" in entry}
