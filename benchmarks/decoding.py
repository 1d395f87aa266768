"""Greedy decoding timed beside transformers, interleaved in one process, on the same weights.

python benchmarks/decoding.py [--tokens 32] [--rounds 5] [--quick] [--json FILE]

Shapes of SmolLM2-135M (30 layers, 576 wide, 9 heads, MLP 1536, 49,152 ids, tied head) in GPT-2's block,
float32, random weights. Checks first that both sides choose the same tokens. Prints a table: median tokens
per second, the share of the memory bandwidth that reading every weight once a step is, and how many times as
fast ours is.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median

import numpy as np
import torch
import transformers

sys.path.insert(0, str(Path(__file__).parents[1]))

from llm_jax.config import SamplingConfig
from llm_jax.inference.decode import generate_tokens, lay_out
from llm_jax.model_config import ModelConfig
from llm_jax.training.throughput import measure_bandwidth
from llm_jax.tree import Tree, count_parameters
from tests.parity.gpt2 import SWITCHES, our_tree, their_config

SHAPE = ModelConfig(
    vocab_size=49_152,
    context_length=256,
    d_model=576,
    num_layers=30,
    num_heads=9,
    d_ff=1536,
    **SWITCHES,
)
ROWS = (1, 8, 32)


def transformers_model() -> transformers.GPT2LMHeadModel:
    """transformers' GPT-2 of this shape with its random weights."""
    torch.manual_seed(0)
    config = their_config(SHAPE, bos_token_id=None, eos_token_id=None)
    return transformers.GPT2LMHeadModel(config).eval()


@torch.no_grad()
def theirs(model: transformers.GPT2LMHeadModel, prompts: np.ndarray, tokens: int) -> np.ndarray:
    """New tokens [B, tokens] by transformers' own generation with its cache."""
    ids = torch.from_numpy(prompts).long()
    options = transformers.GenerationConfig(max_new_tokens=tokens, do_sample=False, pad_token_id=0)
    made = model.generate(ids, attention_mask=torch.ones_like(ids), generation_config=options)
    return made[:, ids.shape[1] :].numpy()


def ours(params: Tree, prompts: np.ndarray, tokens: int) -> np.ndarray:
    """New tokens [B, tokens] by ours."""
    greedy = SamplingConfig(temperature=0)
    rows = generate_tokens(params, SHAPE, prompts.tolist(), max_new_tokens=tokens, sampling=greedy, seed=0)
    return np.stack(list(rows), axis=1)


def seconds_of(side: Callable[[], object]) -> float:
    began = time.perf_counter()
    side()
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tokens", type=int, default=32, help="new tokens of each row")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_const", const=1, dest="rounds", help="one round")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()

    model, bandwidth = transformers_model(), measure_bandwidth()
    params = our_tree(dict(model.named_parameters()), SHAPE)
    size, laid_out = count_parameters(params), lay_out(params)
    print(f"{size / 1e6:.0f} M parameters; {bandwidth / 1e9:.1f} GB/s measured (sum of an array)")
    results: dict[str, object] = {"parameters": size, "bandwidth": bandwidth, "tokens": options.tokens}
    for rows in ROWS:
        prompts = np.random.default_rng(rows).integers(0, SHAPE.vocab_size, (rows, 8))
        sides = {
            "transformers": partial(theirs, model, prompts, options.tokens),
            "llm_jax": partial(ours, laid_out, prompts, options.tokens),
        }
        first, second = (side() for side in sides.values())  # warms up, too
        if not np.array_equal(first, second):
            raise SystemExit(f"{rows} rows: the two sides do not choose the same tokens")
        times: dict[str, list[float]] = {name: [] for name in sides}
        for _ in range(options.rounds):
            for name, side in sides.items():
                times[name].append(seconds_of(side))
        speeds = {name: rows * options.tokens / median(taken) for name, taken in times.items()}
        print(f"\n{rows} rows, {options.tokens} tokens each, the same from both sides")
        print(f"{'':16}{'tokens/s':>10}{'of bandwidth':>14}{'ours is':>9}")
        for name, speed in speeds.items():
            share = speed / rows * 4 * size / bandwidth
            print(f"{name:16}{speed:10.1f}{share:14.0%}{speeds['llm_jax'] / speed:8.2f}x")
        results[f"{rows} rows"] = speeds
    if options.json:
        options.json.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
