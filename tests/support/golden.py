"""Golden files without torch: our gradients under AdamW in numpy, which can be given faults, and a kink on
whichever side is wanted.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from llm_jax.config.model import ModelConfig
from llm_jax.interop.pytorch.tutorial import export_state_dict, name_of_relu_bias
from llm_jax.model.decoder import init_params
from llm_jax.proofs.golden_file import Arrays
from llm_jax.proofs.kinks import FIRM, ULP, Kink, Program
from llm_jax.proofs.tutorial import tutorial_program

CONFIG = ModelConfig(
    vocab_size=11, spare_embedding_rows=1, context_length=6, d_model=8, num_layers=2, num_heads=2, d_ff=32
)
STEPS, ROWS, RATE = 12, 2, 1e-2
# Each fault is one that somebody's AdamW has had, or a slip in a setting.
FAULTS: dict[str, dict[str, Any]] = {
    "rate 1 % high": {"rate": 1.01 * RATE},
    "eps 1e-7": {"eps": 1e-7},
    "beta1 and beta2 the wrong way round": {"beta1": 0.999, "beta2": 0.9},
    "beta1 0.95": {"beta1": 0.95},
    "beta2 0.99": {"beta2": 0.99},
    "no bias correction": {"corrected": False},
    "decay as part of the gradient": {"decays": "in the gradient"},
    "decay after the update": {"decays": "after"},
    "no decay": {"decay": 0.0},
    "last loss 2e-5 off": {"last": 2e-5},
}


class Planted(NamedTuple):
    """Start weights and batches, and the kink in them."""

    weights: Arrays
    batches: np.ndarray
    kinks: dict[bool, Kink]  # by the side


def start() -> tuple[Program, Arrays, np.ndarray]:
    """The program in float32, start weights and batches [STEPS, ROWS, T + 1]."""
    params = init_params(jax.random.key(1), CONFIG)
    weights = {name: np.asarray(array) for name, array in export_state_dict(params, CONFIG).items()}
    weights = {name: array for name, array in weights.items() if not name.endswith("tril")}
    batches = np.random.default_rng(1).integers(0, 11, (STEPS, ROWS, 7)).astype(np.int32)
    return tutorial_program(weights, 6, "float32"), weights, batches


def plant(program: Program, weights: Arrays, batches: np.ndarray, step: int, layer: int) -> Planted:
    """Moves the bias of the unit that is nearest to zero at a step, until its input is zero there."""
    name, weights = name_of_relu_bias(layer), dict(weights)

    def look() -> tuple[np.ndarray, np.ndarray]:
        before = trained(program, weights, batches[:step])[1]
        inputs, sizes = program.relu_inputs(before, batches[step][:, :-1])
        return inputs[layer], ULP * sizes[layer]

    inputs, ulps = look()
    place = np.unravel_index(np.argmin(np.abs(inputs)), inputs.shape)
    for _ in range(6):
        if abs(inputs[place]) > 0.5 * ulps[place]:
            weights[name] = weights[name].copy()
            weights[name][place[2]] -= inputs[place]
            inputs, ulps = look()
    value, ulp = float(inputs[place]), float(ulps[place])
    assert abs(value) <= ulp
    row, token, unit = map(int, place)
    return Planted(
        weights,
        batches,
        {
            on: Kink(step, layer, unit, row, token, value, abs(value) / ulp, on, aim * ulp - value, 0.0)
            for on, aim in ((False, -FIRM), (True, FIRM))
        },
    )


def trained(
    program: Program,
    weights: Arrays,
    batches: np.ndarray,
    kinks: Sequence[Kink] = (),
    *,
    rate: float = RATE,
    beta1: float = 0.9,
    beta2: float = 0.999,
    eps: float = 1e-8,
    decay: float = 0.01,
    decays: str = "before",
    corrected: bool = True,
    last: float = 0.0,
) -> tuple[np.ndarray, Arrays]:
    """Losses of AdamW as torch documents it, and the weights after it."""
    weights = {name: array.astype(np.float32) for name, array in weights.items()}
    first = {name: np.zeros(array.shape) for name, array in weights.items()}
    second = {name: np.zeros(array.shape) for name, array in weights.items()}
    losses = []
    for step, tokens in enumerate(batches):
        for kink in kinks:
            if kink.step == step:
                weights = program.nudged(weights, kink)
        loss, gradients = program.loss_and_gradients(weights, tokens)
        losses.append(loss)
        for name, gradient in gradients.items():
            weight, gradient = weights[name].astype(np.float64), gradient.astype(np.float64)
            if decays == "in the gradient":
                gradient = gradient + decay * weight
            if decays == "before":
                weight *= 1 - rate * decay
            first[name] = beta1 * first[name] + (1 - beta1) * gradient
            second[name] = beta2 * second[name] + (1 - beta2) * gradient**2
            past = step + 1 if corrected else np.inf
            m, v = first[name] / (1 - beta1**past), second[name] / (1 - beta2**past)
            weight -= rate * m / (np.sqrt(v) + eps)
            if decays == "after":
                weight *= 1 - rate * decay
            weights[name] = weight.astype(np.float32)
    losses[-1] += last
    return np.array(losses), weights


def golden_file(
    program: Program, weights: Arrays, batches: np.ndarray, kinks: Sequence[Kink] = (), **fault: Any
) -> Arrays:
    """What a golden file holds."""
    losses, final = trained(program, weights, batches, kinks, **fault)
    loss, gradients = program.loss_and_gradients(weights, batches[0])
    prompt = batches[0, 0, :3]
    return {
        "hyper": np.array([11, 8, 2, 2, 6, ROWS]),
        "lr": np.array(RATE),
        "tokens": batches,
        "logits0": program.logits(weights, batches[0][:, :-1]),
        "loss0": np.array(loss),
        "losses": losses,
        "greedy_prompt": prompt,
        "greedy": program.greedy(final, prompt, 9),
        **{f"init/{name}": array for name, array in weights.items()},
        **{f"grad0/{name}": array for name, array in gradients.items()},
        **{f"final/{name}": array for name, array in final.items()},
    }


def write(path: Path, golden: Mapping[str, Any]) -> None:
    """The golden file itself."""
    np.savez(path, **golden)
