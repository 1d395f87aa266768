"""Train steps timed beside torch's at its best, after a look whether both compute the same.

python benchmarks/speed.py [tutorial tutorial_compact nanogpt gpt2] [--rounds 9] [--quick] [--json FILE]

Torch is tried with one thread and with all (which wait actively), as written and compiled, with its AdamW as
it is and fused: each setting in a process of its own, one after the other. Then the two fastest of them and
ours take turns, each in its process, while the others are stopped. Prints tables: median milliseconds a step,
tokens per second, the share of the machine's own float32 matrix product that is reached (forward and backward
count 6 FLOPs a parameter and token), and how many times as long each takes as ours.
"""

import argparse
import itertools
import json
import os
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import jax
import torch

from benchmarks.contests import Contest, contests, differences, random_batch
from benchmarks.turns import Side, best_of, environment_of, machine, table, take_turns
from llm_jax.training.throughput import flops_per_token, measure_bandwidth, measure_peak_flops

OURS = "llm_jax"
SCRIPT = str(Path(__file__).parent / "contests.py")
FINALISTS = 2


def torch_sides(contest: str) -> list[Side]:
    """Torch's settings."""
    sides = []
    for threads, compiled, fused in itertools.product(
        sorted({1, os.cpu_count() or 1}), (False, True), (False, True)
    ):
        words = [f"--threads={threads}", *["--compiled"] * compiled, *["--fused"] * fused]
        name = f"torch, {threads} thread{'s' * (threads > 1)}{', compiled' * compiled}{', fused' * fused}"
        sides.append(Side(name, [SCRIPT, contest, "torch", *words], environment_of(threads)))
    return sides


def compare(name: str, contest: Contest, rounds: int, peak: float) -> dict[str, Any]:
    """Prints a contest's tables and gives its figures."""
    found = differences(contest)
    if found["loss"] > 1e-5 or found["gradient"] > 1e-4:
        raise SystemExit(f"{name}: the two sides do not compute the same: {found}")
    print(f"\n{name}: loss differs by {found['loss']:.0e}, gradients by {found['gradient']:.0e}", flush=True)
    peers = {side.name: side for side in torch_sides(name)}
    tried = best_of(list(peers.values()))
    print("torch's settings alone, ms a step:")
    for side, seconds in tried.items():
        print(f"  {side:40}{seconds * 1e3:10.2f}", flush=True)
    finalists = [peers[side] for side in list(tried)[:FINALISTS]]
    ours = Side(OURS, [SCRIPT, name, OURS], {})
    medians = take_turns([*finalists, ours], rounds)
    tokens = random_batch(contest).tokens.size
    work = tokens * flops_per_token(contest.config.model)
    columns = {
        "ms a step": lambda seconds: f"{seconds * 1e3:.2f}",
        "tokens/s": lambda seconds: f"{tokens / seconds:,.0f}",
        "of peak": lambda seconds: f"{work / seconds / peak:.0%}",
    }
    print(table(medians, OURS, columns), flush=True)
    return {
        "seconds_per_step": medians,
        "alone": tried,
        "differences": found,
        "tokens_per_step": tokens,
        "flops_per_step": work,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "contests", nargs="*", metavar="CONTEST", help=f"of {', '.join(contests())}; all without any"
    )
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--quick", action="store_const", const=2, dest="rounds", help="two rounds")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()

    if unknown := set(options.contests) - set(contests()):
        parser.error(f"no contest is called {', '.join(unknown)}; there are {', '.join(contests())}")
    peak, bandwidth = measure_peak_flops("float32"), measure_bandwidth()
    print(
        f"ceilings: {peak / 1e9:.0f} GFLOP/s (float32 product), {bandwidth / 1e9:.1f} GB/s (sum of an array)"
    )
    results: dict[str, Any] = {"machine": machine(torch=torch.__version__, jax=jax.__version__)}
    results |= {"peak_flops": peak, "bytes_per_second": bandwidth}
    for name in options.contests or contests():
        results[name] = compare(name, contests()[name], options.rounds, peak)
    if options.json:
        options.json.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
