"""Train steps that are timed beside torch's: what both sides do, and whether both compute the same.

python benchmarks/contests.py CONTEST llm_jax|torch [--threads N] [--compiled] [--fused]

is one side's process, as `speed.py` starts it.
"""

import argparse
import dataclasses
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).parents[1]))

import jax
import jax.numpy as jnp
import numpy as np
import torch

from benchmarks.torch_gpt import TorchGPT, adamw, as_ours
from benchmarks.turns import serve
from llm_jax.base.batch import Batch
from llm_jax.base.tree import Tree, flatten
from llm_jax.config.model import ModelConfig
from llm_jax.config.run import Config, OptimConfig, TrainConfig
from llm_jax.interop.pytorch.tutorial import import_params
from llm_jax.training.losses import next_token_loss
from llm_jax.training.optimizer import make_optimizer
from llm_jax.training.schedule import make_horizon
from llm_jax.training.step import run_steps
from tests.parity.gpt2 import SWITCHES
from tests.parity.torch_tutorial import TorchTutorial


class Contest(NamedTuple):
    """What is trained on both sides. Ours starts from torch's weights."""

    config: Config
    torch_model: Callable[[], Any]
    read: Callable[[Any], Tree]  # a torch state dict as our tree
    clip: float
    calls: int  # calls of our program in one timing


def contests() -> dict[str, Contest]:
    """All of them, by name."""

    def tutorial(vocab: int, calls: int) -> Contest:
        model = ModelConfig(vocab_size=vocab, spare_embedding_rows=1)
        read = lambda named: import_params(_arrays(named), model)  # noqa: E731
        return Contest(Config(model=model), lambda: TorchTutorial(vocab), read, 0.0, calls)

    def gpt(vocab: int, shape: dict[str, int], batch: int) -> Contest:
        model = ModelConfig(vocab_size=vocab, layers="unroll", **SWITCHES, **shape)
        optim = OptimConfig(beta2=0.99, weight_decay=0.1, decay="matrices", clip_norm=1.0)
        config = Config(model=model, optim=optim, train=TrainConfig(batch_size=batch))
        sizes = (vocab, model.context_length, model.d_model, model.num_layers, model.num_heads, True)
        return Contest(
            config, lambda: TorchGPT(*sizes), lambda named: as_ours(named, model.num_heads), 1.0, 1
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


def random_batch(contest: Contest) -> Batch:
    """The same for everybody."""
    shape = (contest.config.train.batch_size, contest.config.model.context_length + 1)
    window = np.random.default_rng(0).integers(0, contest.config.model.vocab_size, shape).astype(np.int32)
    return Batch(window[:, :-1], window[:, 1:], np.ones((shape[0], shape[1] - 1), np.float32))


def differences(contest: Contest) -> dict[str, float]:
    """How far our loss and gradients are from torch's, without dropout: relative to the loss, and to the
    largest entry of each gradient (the worst of them), or a thousandth of the largest of all.
    """
    config, batch = dataclasses.replace(contest.config.model, dropout=0.0), random_batch(contest)
    torch.manual_seed(0)
    model = contest.torch_model()
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


def torch_steps(contest: Contest, *, fused: bool, compiled: bool) -> Callable[[], int]:
    """A function that does one step of torch's and gives 1."""
    batch = random_batch(contest)
    torch.manual_seed(0)
    model, optim = contest.torch_model(), contest.config.optim
    optimizer = (
        adamw(model, rate=1e-3, beta2=optim.beta2, decay=optim.weight_decay, fused=fused)
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


def our_steps(contest: Contest) -> Callable[[], int]:
    """A function that does as many steps of ours as one or more calls hold, and gives their number."""
    config, batch = contest.config, random_batch(contest)
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


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("contest", choices=contests())
    parser.add_argument("side", choices=("llm_jax", "torch"))
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="of torch")
    parser.add_argument("--compiled", action="store_true")
    parser.add_argument("--fused", action="store_true")
    options = parser.parse_args()
    contest = contests()[options.contest]
    if options.side == "llm_jax":
        serve(our_steps(contest))
    else:
        torch.set_num_threads(options.threads)
        serve(torch_steps(contest, fused=options.fused, compiled=options.compiled))


if __name__ == "__main__":
    main()
