"""How long a new process takes to its first training step: once with nothing compiled before, then N times
with everything kept.

`python benchmarks/start.py [--times 7] [CONFIG.toml ...] [--section.field=VALUE ...]`. Each run has a folder
of its own and 10 steps; the text is prepared before. Prints a line for each process and, last, the median
as JSON.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from itertools import takewhile
from pathlib import Path

from llm_jax.config.load import read_config
from llm_jax.data.store import prepare_store


def first_step(words: list[str], folder: Path, run: str) -> dict[str, float]:
    """The times of a fresh process that trains into a fresh run directory."""
    command = [sys.executable, "-m", "llm_jax.train", *words, f"--train.run={folder / run}"]
    surroundings = os.environ | {"JAX_COMPILATION_CACHE_DIR": str(folder / "compiled")}
    done = subprocess.run(command, capture_output=True, text=True, env=surroundings, check=False)
    if done.returncode:
        sys.exit(done.stderr)
    times = json.loads(done.stdout.splitlines()[-1])
    return {name: times[name] for name in ("seconds_to_first_step", "compile_seconds")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=7)
    options, words = parser.parse_known_args()
    words = [*(words or ["configs/tutorial.toml"]), "--train.steps=10", "--train.sample_tokens=0"]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files = list(takewhile(lambda word: not word.startswith("-"), words))
        config = read_config([Path(file) for file in files], words[len(files) :])
        prepare_store(config.data, report=print)
        cold = first_step(words, folder, "cold")
        print(f"cold: {cold}", flush=True)
        warm = []
        for number in range(options.times):
            warm.append(first_step(words, folder, f"warm-{number}"))
            print(f"warm: {warm[-1]}", flush=True)
    times = [run["seconds_to_first_step"] for run in warm]
    median = statistics.median(times)
    print(json.dumps({"cold": cold["seconds_to_first_step"], "warm": median, "all_warm": times}))


if __name__ == "__main__":
    main()
