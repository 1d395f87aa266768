"""SIGKILLs at random moments of a run, against the promises: every one resumes, none costs more than one save
interval, nothing damaged is loaded, and the end is bitwise that of a run that nobody killed.

python benchmarks/kills.py --kills 100

A small run is killed, started again, killed again ... until it has had all its kills, and is then left to
finish. The moments are drawn from the whole life of the process: start-up, compiling, steps, and the middle
of saves (which come after every second step). The last line is JSON; exit status 1 if a promise did not hold.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from llm_jax.config.model import ModelConfig
from llm_jax.config.run import Config, DataConfig, OptimConfig, TrainConfig
from llm_jax.proofs.resume import differences, finish, last_logged_step, place, start

SAVE_INTERVAL = 2


def the_run(folder: Path, steps: int) -> Config:
    """A run whose steps take about as long as its saves, so that kills fall into both."""
    return Config(
        model=ModelConfig(context_length=32, d_model=64, num_layers=2, num_heads=4, dropout=0.1),
        data=DataConfig(prepared=folder / "prepared"),
        optim=OptimConfig(ema_decay=0.99),
        train=TrainConfig(
            steps=steps,
            batch_size=16,
            eval_interval=steps,
            save_interval=SAVE_INTERVAL,
            log_interval=1,
            sample_tokens=0,
        ),
    )


def committed(run: Path) -> int:
    """The newest step that is on disk; -1 for none."""
    steps = [int(path.name) for path in (run / "checkpoints").glob("*") if path.name.isdecimal()]
    return max(steps, default=-1)


def wait_for_steps(process: subprocess.Popen[str], run: Path, seconds: float) -> None:
    """Waits until this process has logged a step, then that long again, or for the time alone if it is
    negative.
    """
    before, deadline = last_logged_step(run), time.monotonic() + abs(seconds)
    if seconds > 0:
        while last_logged_step(run) == before and process.poll() is None:
            time.sleep(0.002)
        deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.002)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    chance = random.Random(arguments.seed)
    stages = {"before a step": 0, "between steps": 0, "in a save": 0}
    lost, went_back = [], 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        config = the_run(folder, arguments.steps)
        straight, killed = place(config, folder / "straight"), place(config, folder / "killed")
        # Only start-up becomes faster: the straight run compiles, the others load what it compiled.
        os.environ |= {
            "JAX_COMPILATION_CACHE_DIR": str(folder / "compiled"),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        }
        finish(start(straight))
        run = killed.train.run
        for kill in range(arguments.kills):
            saved_before = committed(run)
            process = start(killed)
            # One in five dies while it starts; the others within half a second of stepping and saving.
            wait_for_steps(process, run, -4 * chance.random() if kill % 5 == 0 else chance.random() / 2)
            process.send_signal(signal.SIGKILL)
            _, errors = process.communicate()
            if process.returncode != -signal.SIGKILL:
                raise SystemExit(f"kill {kill}: the run ended before, give more --steps: {errors[-300:]}")
            in_a_save = any((run / "checkpoints").glob("*.tmp*"))
            stepped = committed(run) > saved_before or last_logged_step(run) > saved_before
            stages["in a save" if in_a_save else "between steps" if stepped else "before a step"] += 1
            lost.append(max(0, last_logged_step(run) - committed(run)))
            went_back += committed(run) < saved_before
            if (kill + 1) % 10 == 0:
                print(f"{kill + 1} kills, {stages}, step {committed(run)}", file=sys.stderr, flush=True)
        finish(start(killed))
        damaged = sum(1 for _ in (run / "checkpoints").glob("rejected-*"))
        found = differences(straight, killed)
    holds = (
        not (damaged or went_back or found["differing_leaves"] or found["differing_losses"])
        and max(lost) <= SAVE_INTERVAL
    )
    print(f"{len(lost)} kills: {stages}")
    print(f"most steps lost: {max(lost)} (save interval {SAVE_INTERVAL}); damaged checkpoints: {damaged}")
    print(f"leaves that differ from the straight run: {len(found['differing_leaves'])} of {found['leaves']}")
    print(f"losses that differ: {len(found['differing_losses'])} of {found['losses']}")
    summary = {"kills": len(lost), "most_lost": max(lost), "damaged": damaged, "stages": stages}
    print(json.dumps({"holds": holds} | summary | found))
    if not holds:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
