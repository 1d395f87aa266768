"""Train steps timed beside torch's, interleaved in one process, after a look whether both compute the same.

python benchmarks/speed.py [tutorial nanogpt gpt2] [--rounds 7] [--quick] [--json FILE]

Prints a table: median milliseconds a step, tokens per second, the share of the machine's own float32 matrix
product that is reached (forward and backward count 6 FLOPs a parameter and token), and how many times as long
each takes as the fastest. Ceilings are measured in the same process.
"""

import argparse
import dataclasses
import json
import os
import platform
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

# Torch's threads would otherwise go on spinning while ours run.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parent)]

import jax
import jax.numpy as jnp
import numpy as np
import torch
from torch_gpt import TorchGPT, adamw, as_ours

from llm_jax.batch import Batch
from llm_jax.config import Config, OptimConfig, TrainConfig
from llm_jax.interop.torch_tutorial import import_params
from llm_jax.model_config import ModelConfig
from llm_jax.training.losses import next_token_loss
from llm_jax.training.optimizer import make_horizon, make_optimizer
from llm_jax.training.step import run_steps
from llm_jax.training.throughput import flops_per_token, measure_bandwidth, measure_peak_flops
from llm_jax.tree import Tree, flatten
from tests.parity.gpt2 import SWITCHES
from tests.parity.torch_tutorial import TorchTutorial


class Contest(NamedTuple):
    """What is trained on both sides. Ours starts from torch's weights."""

    config: Config
    torch_model: Callable[[], Any]
    read: Callable[[Any], Tree]  # a torch state dict as our tree
    clip: float
    fused: bool  # whether torch's fused AdamW runs too
    calls: int  # calls of our program in one timing


def contests() -> dict[str, Contest]:
    """All of them, by name."""

    def tutorial(vocab: int, calls: int) -> Contest:
        model = ModelConfig(vocab_size=vocab, spare_embedding_rows=1)
        read = lambda named: import_params(_arrays(named), model)  # noqa: E731
        return Contest(Config(model=model), lambda: TorchTutorial(vocab), read, 0.0, True, calls)

    def gpt(vocab: int, shape: dict[str, int], batch: int) -> Contest:
        model = ModelConfig(vocab_size=vocab, layers="unroll", **SWITCHES, **shape)
        optim = OptimConfig(beta2=0.99, weight_decay=0.1, decay="matrices", clip_norm=1.0)
        config = Config(model=model, optim=optim, train=TrainConfig(batch_size=batch))
        sizes = (vocab, model.context_length, model.d_model, model.num_layers, model.num_heads, True)
        return Contest(
            config, lambda: TorchGPT(*sizes), lambda named: as_ours(named, model.num_heads), 1.0, False, 1
        )

    return {
        "tutorial": tutorial(100_070, 1),
        "tutorial_compact": tutorial(3_771, 2),
        "nanogpt": gpt(65, {"context_length": 64, "d_model": 128, "num_layers": 4, "num_heads": 4}, 12),
        "gpt2": gpt(50_257, {"context_length": 256, "d_model": 768, "num_layers": 12, "num_heads": 12}, 1),
    }


def _arrays(named: dict[str, torch.Tensor]) -> dict[str, np.ndarray]:
    return {name: tensor.detach().numpy() for name, tensor in named.items()}


def _gradients(model: Any) -> dict[str, torch.Tensor]:
    named = {name: parameter.grad for name, parameter in model.named_parameters()}
    return {name: torch.zeros(1) if grad is None else grad for name, grad in named.items()}


def differences(contest: Contest, model: Any, batch: Batch) -> dict[str, float]:
    """How far our loss and gradients are from torch's, without dropout: relative to the loss, and to the
    largest entry of each gradient (the worst of them), or a thousandth of the largest of all.
    """
    config = dataclasses.replace(contest.config.model, dropout=0.0)
    model.eval()
    loss = model.loss(*(torch.from_numpy(ids).long() for ids in (batch.tokens, batch.targets)))
    model.zero_grad()
    loss.backward()
    model.train()
    buffers = dict(model.named_buffers())
    wanted = contest.read(_gradients(model) | buffers)

    def mean(params: Tree) -> jax.Array:
        total, weight = next_token_loss(params, config, batch, None)
        return total / weight

    ours, grads = jax.jit(jax.value_and_grad(mean))(contest.read(model.state_dict()))
    reference = dict(flatten(wanted))
    # Some gradients are zero but for rounding (attention does not depend on the keys' bias).
    least = 1e-3 * max(float(np.abs(leaf).max()) for leaf in reference.values())
    worst = max(
        float(np.abs(np.asarray(leaf) - reference[path]).max() / max(np.abs(reference[path]).max(), least))
        for path, leaf in flatten(grads)
    )
    return {"loss": abs(float(ours) / loss.item() - 1), "gradient": worst}


def torch_steps(contest: Contest, batch: Batch, *, fused: bool, compiled: bool) -> Callable[[], int]:
    """A function that does one step of torch's and gives 1."""
    torch.manual_seed(0)
    model, optim = contest.torch_model(), contest.config.optim
    optimizer = (
        adamw(model, rate=1e-3, beta2=optim.beta2, decay=optim.weight_decay)
        if contest.clip
        else torch.optim.AdamW(model.parameters(), lr=1e-3, fused=fused)
    )
    loss_of = torch.compile(model.loss) if compiled else model.loss
    tokens, targets = (torch.from_numpy(ids).long() for ids in (batch.tokens, batch.targets))

    def step() -> int:
        loss = loss_of(tokens, targets)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        if contest.clip:
            torch.nn.utils.clip_grad_norm_(model.parameters(), contest.clip)
        optimizer.step()
        return 1

    return step


def our_steps(contest: Contest, batch: Batch) -> Callable[[], int]:
    """A function that does as many steps of ours as one or more calls hold, and gives their number."""
    config = contest.config
    params = jax.tree.map(jnp.array, contest.read(contest.torch_model().state_dict()))
    optimizer = make_optimizer(config.optim, make_horizon(config.optim, config.train.steps))
    counters = {name: jnp.int32(0) for name in ("step", "batch", "skipped", "rollbacks")}
    state = {"params": params, "opt_state": optimizer.init(params), "counters": counters}
    number = config.train.steps_per_dispatch

    def steps() -> int:
        nonlocal state
        for _ in range(contest.calls):
            state, _ = run_steps(config, state, [batch] * number, [False] * (number - 1) + [True])
        jax.block_until_ready(state)
        return number * contest.calls

    return steps


def measure(sides: dict[str, Callable[[], int]], rounds: int) -> dict[str, list[float]]:
    """Seconds a step of each side, in rounds that give each side its turn, the first of them to warm up."""
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(rounds + 1):
        for name, side in sides.items():
            began, done = time.perf_counter(), 0
            while done == 0 or time.perf_counter() - began < 0.4:
                done += side()
            if number:
                seconds[name].append((time.perf_counter() - began) / done)
    return seconds


def compare(name: str, contest: Contest, rounds: int, peak: float) -> dict[str, Any]:
    """Prints a contest's table and gives its figures."""
    shape = (contest.config.train.batch_size, contest.config.model.context_length + 1)
    window = np.random.default_rng(0).integers(0, contest.config.model.vocab_size, shape).astype(np.int32)
    batch = Batch(window[:, :-1], window[:, 1:], np.ones((shape[0], shape[1] - 1), np.float32))
    torch.manual_seed(0)
    found = differences(contest, contest.torch_model(), batch)
    if found["loss"] > 1e-5 or found["gradient"] > 1e-4:
        raise SystemExit(f"{name}: the two sides do not compute the same: {found}")

    sides = {"torch": torch_steps(contest, batch, fused=False, compiled=False)}
    if contest.fused:
        sides["torch, fused AdamW"] = torch_steps(contest, batch, fused=True, compiled=False)
    else:
        sides["torch, compiled"] = torch_steps(contest, batch, fused=False, compiled=True)
    sides["llm_jax"] = our_steps(contest, batch)
    medians = {side: median(times) for side, times in measure(sides, rounds).items()}
    tokens, work = batch.tokens.size, flops_per_token(contest.config.model)
    print(f"\n{name}: loss differs by {found['loss']:.0e}, gradients by {found['gradient']:.0e}")
    print(f"{'':24}{'ms a step':>10}{'tokens/s':>12}{'of peak':>9}{'ours is':>9}")
    for side, seconds in medians.items():
        share, ratio = tokens * work / seconds / peak, seconds / medians["llm_jax"]
        print(f"{side:24}{seconds * 1e3:10.1f}{tokens / seconds:12,.0f}{share:9.0%}{ratio:8.2f}x")
    return {"seconds_per_step": medians, "differences": found, "tokens_per_step": tokens} | {
        "flops_per_step": tokens * work
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "contests", nargs="*", metavar="CONTEST", help=f"of {', '.join(contests())}; all without any"
    )
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--quick", action="store_const", const=2, dest="rounds", help="two rounds")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()

    if unknown := set(options.contests) - set(contests()):
        parser.error(f"no contest is called {', '.join(unknown)}; there are {', '.join(contests())}")
    peak, bandwidth = measure_peak_flops("float32"), measure_bandwidth()
    print(
        f"ceilings: {peak / 1e9:.0f} GFLOP/s (float32 product), {bandwidth / 1e9:.1f} GB/s (sum of an array)"
    )
    versions = {"torch": torch.__version__, "jax": jax.__version__, "python": platform.python_version()}
    machine = {"processors": os.cpu_count(), "torch_threads": torch.get_num_threads(), **versions}
    results: dict[str, Any] = {"machine": machine, "peak_flops": peak, "bytes_per_second": bandwidth}
    for name in options.contests or contests():
        results[name] = compare(name, contests()[name], options.rounds, peak)
    if options.json:
        options.json.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
