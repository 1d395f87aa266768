"""Greedy decoding and the reading of a prompt timed beside transformers and llama.cpp, each at its best.

python benchmarks/decoding.py DIR [--rounds 5] [--quick] [--json FILE]

DIR is what `convert import` made. It is exported to temporary files: for transformers, and as a GGUF file in
float32 for llama.cpp (package xllamacpp), so that all three read the same numbers. transformers is tried with
one thread and with all (which wait actively), with its own cache, a static one, and that compiled; llama.cpp
with one thread and with all, with its usual flash attention and cache. Each setting is in a process of its
own; then the fastest of each program and ours take turns, while the others are stopped. Checks first that all
choose the same tokens (llama.cpp, whose cache is in float16, may leave late). Prints tables: median tokens
per second, the share of the memory bandwidth that reading every weight once a step is, and how many times as
fast ours is.
"""

import argparse
import itertools
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np

import llm_jax
from benchmarks.decoders import TASKS
from benchmarks.turns import Side, best_of, environment_of, machine, table, take_turns
from llm_jax.base.tree import count_parameters
from llm_jax.interop.export_model import export_gguf, export_huggingface
from llm_jax.training.throughput import measure_bandwidth

SCRIPT = str(Path(__file__).parent / "decoders.py")
OURS = "llm_jax"


def sides(task: str, models: dict[str, Path]) -> dict[str, list[Side]]:
    """The settings of each program."""
    found: dict[str, list[Side]] = {OURS: [Side(OURS, [SCRIPT, OURS, str(models[OURS]), task], {})]}
    all_threads = sorted({1, os.cpu_count() or 1})
    caches = {"": [], ", static cache": ["--static"], ", static cache, compiled": ["--static", "--compiled"]}
    found["transformers"] = [
        Side(
            f"transformers, {threads} threads{said}",
            [SCRIPT, "transformers", str(models["transformers"]), task, f"--threads={threads}", *words],
            environment_of(threads),
        )
        for threads, (said, words) in itertools.product(all_threads, caches.items())
    ]
    if TASKS[task].rows == 1:
        found["llama.cpp"] = [
            Side(
                f"llama.cpp, {threads} threads",
                [SCRIPT, "llama.cpp", str(models["llama.cpp"]), task, f"--threads={threads}"],
                {},
            )
            for threads in all_threads
        ]
    return found


def made_by(side: Side) -> list[list[int]]:
    """The ids that a side makes."""
    done = subprocess.run(
        [sys.executable, *side.words, "--show"],
        env=os.environ | dict(side.environment),
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout.splitlines()[-1])


def compare(task: str, models: dict[str, Path], rounds: int, size: int, bandwidth: float) -> dict[str, Any]:
    """Prints a task's tables and gives its figures."""
    programs = sides(task, models)
    made = {name: made_by(settings[0]) for name, settings in programs.items()}
    same = {name: int(np.equal(rows, made[OURS]).sum()) for name, rows in made.items()}
    of = np.size(made[OURS])
    print(f"\n{task}: the same tokens as ours, of {of}: {same}", flush=True)
    if same["transformers"] != of:
        raise SystemExit(f"{task}: transformers does not choose the same tokens")
    alone = {name: best_of(settings) for name, settings in programs.items() if name != OURS}
    for tried in alone.values():
        for side, seconds in tried.items():
            print(f"  alone: {side:50}{1 / seconds:10.1f} tokens/s", flush=True)
    named = {side.name: side for settings in programs.values() for side in settings}
    best = [named[next(iter(tried))] for tried in alone.values()]
    seconds = take_turns([*best, *programs[OURS]], rounds)
    reads = TASKS[task].rows if TASKS[task].new > 1 else TASKS[task].prompt  # tokens for each reading of all
    columns = {
        "tokens/s": lambda each: f"{1 / each:.1f}",
        "of bandwidth": lambda each: f"{4 * size / reads / each / bandwidth:.0%}",
    }
    print(table(seconds, OURS, columns), flush=True)
    return {"seconds_per_token": seconds, "alone": alone, "same_tokens": same, "of_tokens": of}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("directory", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_const", const=1, dest="rounds", help="one round")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()

    bandwidth, size = measure_bandwidth(), count_parameters(llm_jax.load(options.directory).params)
    print(f"{size / 1e6:.0f} M parameters; {bandwidth / 1e9:.1f} GB/s measured (sum of an array)")
    results: dict[str, Any] = {"parameters": size, "bandwidth": bandwidth, "machine": machine()}
    with tempfile.TemporaryDirectory() as name:
        models = {
            OURS: options.directory,
            "transformers": Path(name) / "huggingface",
            "llama.cpp": Path(name) / "model.gguf",
        }
        print(export_huggingface(options.directory, models["transformers"]))
        print(export_gguf(options.directory, models["llama.cpp"], "float32"))
        for task in TASKS:
            results[task] = compare(task, models, options.rounds, size, bandwidth)
    if options.json:
        options.json.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
