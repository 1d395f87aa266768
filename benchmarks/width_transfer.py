"""Whether a learning rate that is best at one width is best at another: standard start and rates beside muP.

python benchmarks/width_transfer.py [--widths 32 64 128 256] [--rates ...] [--steps 150] [--seeds 1]
                                    [--optimizer adamw] [--json FILE]

A decoder of 2 layers (heads of 16) on the bytes of the embedded handbook, 16 rows of 64, rotary positions,
rms norm, no dropout, a learning rate that falls to 0 in a straight line. muP's base is the first width. Shows
the loss over the validation split in nats per byte (the mean of the seeds), a row for each width, and which
rate is best. Each run's line is appended to --json as it ends; what stands there is not done again.
"""

import argparse
import dataclasses
import json
import math
import sys
from pathlib import Path
from statistics import mean

sys.path.insert(0, str(Path(__file__).parents[1]))

from ablation import train
from rich.progress import track

from llm_jax.base.compilation import keep_compiled_programs
from llm_jax.config.model import ModelConfig
from llm_jax.config.run import Config, DataConfig, OptimConfig, TrainConfig
from llm_jax.proofs.width import widened

HEAD_WIDTH = 16


def a_config(width: int, base_width: int, rate: float, steps: int, seed: int, optimizer: str) -> Config:
    model = ModelConfig(
        d_model=HEAD_WIDTH,
        num_heads=1,
        num_layers=2,
        context_length=64,
        positions="rotary",
        norm="rms",
        activation="gelu",
        output_bias=False,
        mlp_bias=False,
        head_bias=False,
        initializer="gpt2",
        dropout=0.0,
    )
    return Config(
        model=dataclasses.replace(widened(model, width), base_width=base_width),
        data=DataConfig(tokenizer="bytes", compact_vocab=False),
        optim=OptimConfig(
            optimizer=optimizer,
            learning_rate=rate,
            beta2=0.99,
            weight_decay=0.1,
            decay="matrices",
            clip_norm=1.0,
            schedule="wsd",
            decay_fraction=1.0,
            warmup_steps=steps // 10,
        ),
        train=TrainConfig(steps=steps, batch_size=16, seed=seed, order="permutation"),
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--widths", type=int, nargs="+", default=[32, 64, 128, 256])
    parser.add_argument("--rates", type=float, nargs="+", default=[2.0**-n for n in (9, 8, 7, 6, 5, 4)])
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--optimizer", choices=["adamw", "muon"], default="adamw")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()

    keep_compiled_programs()
    done: dict[tuple, float] = {}
    if options.json and options.json.exists():
        for line in options.json.read_text().splitlines():
            entry = json.loads(line)
            done[tuple(entry["run"])] = entry["loss"]
    bases = {"standard": 0, "muP": options.widths[0]}
    runs = [
        (width, base, rate, options.steps, seed, options.optimizer)
        for seed in range(options.seeds)
        for width in options.widths
        for base in bases.values()
        for rate in options.rates
    ]
    for run in track([run for run in runs if run not in done], "runs"):
        width, base, *rest = run
        # At its base muP is standard.
        twin = (width, 0, *rest)
        done[run] = done[twin] if base == width and twin in done else train(a_config(*run))
        if options.json:
            with options.json.open("a") as file:
                file.write(json.dumps({"run": run, "loss": done[run]}) + "\n")
    print("| start and rates | width | " + " | ".join(f"{rate:.4g}" for rate in options.rates) + " | best |")
    print("|---" * (len(options.rates) + 3) + "|")
    for name, base in bases.items():
        for width in options.widths:
            losses = [
                mean(
                    done[width, base, rate, options.steps, seed, options.optimizer]
                    for seed in range(options.seeds)
                )
                for rate in options.rates
            ]
            finite = [loss if math.isfinite(loss) else math.inf for loss in losses]
            best = options.rates[finite.index(min(finite))]
            row = " | ".join(f"{loss:.3f}" for loss in losses)
            print(f"| {name} | {width} | {row} | {best:.4g} |")


if __name__ == "__main__":
    main()
