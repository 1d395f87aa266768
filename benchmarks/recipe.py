"""Torch's side of a configuration: the same batches, schedule and split, and the loss that it ends with.

python benchmarks/recipe.py [CONFIG.toml] [--section.field VALUE ...], as for `llm-jax train`

Trains the GPT of `torch_gpt` without biases, as nanoGPT does, and prints a line of JSON: the loss over the
whole validation split in nats per token, and the seconds of the steps alone.
"""

import json
import math
import sys
import time
from pathlib import Path
from typing import Annotated

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parent)]

import numpy as np
import torch
from cyclopts import Parameter
from torch import nn
from torch.nn import functional
from torch_gpt import TorchGPT, adamw

from llm_jax.base.batch import Batch
from llm_jax.cli import command
from llm_jax.config.model import ModelConfig
from llm_jax.config.run import Config
from llm_jax.data.windows import Windowing, scoring_batch, scoring_rows
from llm_jax.runs import data
from llm_jax.tasks.language_modelling import held_out
from llm_jax.training.schedule import make_horizon, make_schedule


def main(*, config: Annotated[Config, Parameter(name="*")] = Config()) -> None:
    """Trains torch's GPT as the configuration says."""
    material = data.gather(config, report=print)
    config = material.config
    torch.manual_seed(config.train.seed)
    model = gpt(config.model)
    optimizer = adamw(
        model,
        rate=config.optim.learning_rate,
        beta2=config.optim.beta2,
        decay=config.optim.weight_decay,
        fused=True,  # with all threads, which OMP_WAIT_POLICY=active keeps awake, the fastest in `speed.py`
    )
    schedule, seconds = make_schedule(config.optim, make_horizon(config.optim, config.train.steps)), 0.0
    for step in range(config.train.steps):
        tokens, targets = as_torch(material.batch_at(step))
        rate = float(schedule(step))
        began = time.perf_counter()
        for group in optimizer.param_groups:
            group["lr"] = rate
        loss = model.loss(tokens, targets)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), config.optim.clip_norm or math.inf)
        optimizer.step()
        seconds += time.perf_counter() - began
        if not (step + 1) % 100:
            print(f"step {step + 1}: {loss.item():.3f} nats, {seconds / (step + 1) * 1e3:.1f} ms a step")
    texts, context = [held_out(material.store)], config.model.context_length
    stride = config.train.eval_stride or context
    rows = scoring_rows(texts, Windowing(context, stride, config.train.eval_batch_size * context))
    batches = [scoring_batch(texts, each) for each in rows]
    nats = np.concatenate([token_nats(model, batch)[batch.weights > 0] for batch in batches])
    result = {"steps": config.train.steps, "validation_loss": float(nats.mean()), "seconds": seconds}
    print(json.dumps(result))


def gpt(config: ModelConfig) -> TorchGPT:
    """The model with GPT-2's smaller start of what goes into the residual stream."""
    sizes = (config.context_length, config.d_model, config.num_layers, config.num_heads)
    model = TorchGPT(config.vocab_size, *sizes, bias=False)
    for name, parameter in model.named_parameters():
        if name.endswith(("out.weight", "down.weight")):
            nn.init.normal_(parameter, std=0.02 / math.sqrt(2 * config.num_layers))
    return model


def as_torch(batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
    """Tokens and targets, int64 [B, T]."""
    return torch.from_numpy(batch.tokens).long(), torch.from_numpy(batch.targets).long()


@torch.no_grad()
def token_nats(model: TorchGPT, batch: Batch) -> np.ndarray:
    """Nats of each target, [B, T]."""
    tokens, targets = as_torch(batch)
    nats = functional.cross_entropy(model(tokens).flatten(0, 1), targets.flatten(), reduction="none")
    return nats.reshape(targets.shape).numpy()


if __name__ == "__main__":
    command.run(main, takes_files=True)
