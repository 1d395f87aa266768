"""What each setting of a recipe is worth: the configuration with one change at a time, on several seeds.

python benchmarks/ablation.py CONFIG.toml [--seeds 5] [--with WORDS ...] [--json FILE]

Each --with is a variant: options of `llm-jax train` in quotes, put on top of the configuration:
    --with="--optim.optimizer=adamw --optim.learning_rate=3e-3" --with="--model.qk_norm=none"
Prints the loss over the whole validation split in nats per token: its mean and standard error over the seeds,
and how much worse than the unchanged configuration, by the differences of the same seeds. Each run's line is
appended to --json as it ends, and a run that stands there is not done again.
"""

import argparse
import dataclasses
import json
import shlex
import sys
import time
from pathlib import Path
from statistics import mean, stdev

sys.path.insert(0, str(Path(__file__).parents[1]))

from rich.progress import track

from llm_jax.base.compilation import keep_compiled_programs
from llm_jax.config.load import read_config
from llm_jax.config.run import Config
from llm_jax.runs import data
from llm_jax.training.state import evaluated_params, init_state
from llm_jax.training.step import run_steps


def train(config: Config) -> float:
    """Nats per token over the whole validation split after the run."""
    material = data.gather(config, report=lambda _: None)
    config, each = material.config, material.config.train.steps_per_dispatch
    state = init_state(config)
    for first in range(0, config.train.steps, each):
        count = min(each, config.train.steps - first)
        batches = [material.batch_at(index) for index in range(first, first + count)]
        state, _ = run_steps(config, state, batches, [False] * count)
    return material.evaluate(evaluated_params(config.model, state)).loss


def summary(losses: list[float]) -> str:
    """Mean and standard error."""
    error = stdev(losses) / len(losses) ** 0.5 if len(losses) > 1 else float("nan")
    return f"{mean(losses):.4f} +- {error:.4f}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("config", type=Path)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--with", action="append", default=[], dest="variants")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()

    keep_compiled_programs()
    done: dict[tuple[str, int], float] = {}
    if options.json and options.json.exists():
        for line in options.json.read_text().splitlines():
            entry = json.loads(line)
            done[entry["variant"], entry["seed"]] = entry["loss"]
    variants = {words: read_config([options.config], shlex.split(words)) for words in ("", *options.variants)}
    runs = [(variant, seed) for seed in range(options.seeds) for variant in variants]
    for variant, seed in track([run for run in runs if run not in done], "runs"):
        config = variants[variant]
        config = dataclasses.replace(config, train=dataclasses.replace(config.train, seed=seed))
        began = time.perf_counter()
        done[variant, seed] = loss = train(config)
        if options.json:
            entry = {"variant": variant, "seed": seed, "loss": loss, "seconds": time.perf_counter() - began}
            with options.json.open("a") as file:
                file.write(json.dumps(entry) + "\n")
    for variant in variants:
        losses = [done[variant, seed] for seed in range(options.seeds)]
        worse = [done[variant, seed] - done["", seed] for seed in range(options.seeds)]
        print(f"{summary(losses)}   {summary(worse)} worse   {variant or 'unchanged'}")


if __name__ == "__main__":
    main()
