"""Runs of torch on one side of a kink and on the other, and torch's AdamW with faults, through the verdict on
golden files.
"""

from typing import Any

import numpy as np
import pytest
import torch

from llm_jax.interop.pytorch.tutorial import name_of_relu_bias
from llm_jax.proofs.golden_file import Arrays, group
from llm_jax.proofs.kinks import Kink
from llm_jax.proofs.tutorial import holds, judge
from tests.parity.torch_tutorial import TorchTutorial
from tests.support.golden import CONFIG, RATE, Planted, plant, start

FAULTS: dict[str, dict[str, Any]] = {
    "rate 1 % high": {"lr": 1.01 * RATE},
    "eps 1e-7": {"eps": 1e-7},
    "beta1 0.95": {"betas": (0.95, 0.999)},
    "beta2 0.99": {"betas": (0.9, 0.99)},
    "no decay": {"weight_decay": 0.0},
}


@pytest.fixture(scope="module")
def planted() -> Planted:
    program, weights, batches = start()
    return plant(program, weights, batches, step=3, layer=1)


def golden_of_torch(
    weights: Arrays, batches: np.ndarray, kink: Kink | None, kind: Any = torch.optim.AdamW, **settings: Any
) -> Arrays:
    """The golden file that torch writes, with the unit of the kink nudged to its side."""
    sizes = (CONFIG.vocab_size, CONFIG.d_model, CONFIG.num_layers, CONFIG.num_heads, CONFIG.context_length)
    model = TorchTutorial(*sizes, dropout=0.0)
    absent = model.load_state_dict(
        {name: torch.tensor(array) for name, array in weights.items()}, strict=False
    )
    assert all(name.endswith("tril") for name in absent.missing_keys)
    optimizer = kind(model.parameters(), **{"lr": RATE, "weight_decay": 0.01, **settings})
    tokens, losses, golden = torch.tensor(batches).long(), [], {}
    for step, batch in enumerate(tokens):
        if kink and kink.step == step:
            with torch.no_grad():
                model.get_parameter(name_of_relu_bias(kink.layer))[kink.unit] += kink.nudge
        loss = model.loss(batch[:, :-1], batch[:, 1:])
        optimizer.zero_grad()
        loss.backward()
        if step == 0:
            golden["logits0"] = model(batch[:, :-1]).detach().numpy()
            for name, parameter in model.named_parameters():
                assert parameter.grad is not None
                golden[f"grad0/{name}"] = parameter.grad.numpy().copy()
        optimizer.step()
        losses.append(loss.item())
    prompt = batches[0, 0, :3]
    greedy = model.generate(torch.tensor(prompt[None]).long(), 6, greedy=True)[0].numpy()
    return golden | {
        "hyper": np.array([*sizes, batches.shape[1]]),
        "lr": np.array(RATE),
        "tokens": batches,
        "loss0": np.array(losses[0]),
        "losses": np.array(losses),
        "greedy_prompt": prompt,
        "greedy": greedy,
        **{f"init/{name}": array for name, array in weights.items()},
        **{f"final/{name}": value.detach().numpy() for name, value in model.named_parameters()},
    }


def test_torch_on_either_side_of_a_kink_holds(planted: Planted) -> None:
    weights, batches, kinks = planted
    sides = [golden_of_torch(weights, batches, kinks[on]) for on in (False, True)]
    assert np.abs(sides[0]["losses"] - sides[1]["losses"]).max() > 1e-4
    judged = [judge(golden, print) for golden in sides]
    assert all(map(holds, judged))
    found = [kink for each in judged for _, run in each.values() for kink in run.kinks]
    assert {kink[:5] for kink in found} == {kinks[True][:5]}
    assert len(group(sides[0], "grad0")) == len(group(sides[0], "init"))


@pytest.mark.parametrize("fault", FAULTS)
def test_torch_with_a_fault_does_not_hold(planted: Planted, fault: str) -> None:
    for kink in (None, *planted.kinks.values()):
        golden = golden_of_torch(planted.weights, planted.batches, kink, **FAULTS[fault])
        assert not holds(judge(golden, print))


def test_torchs_adam_whose_decay_is_in_the_gradient_does_not_hold(planted: Planted) -> None:
    for kink in planted.kinks.values():
        golden = golden_of_torch(planted.weights, planted.batches, kink, kind=torch.optim.Adam)
        assert not holds(judge(golden, print))
