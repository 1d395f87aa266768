"""Muon beside torch's own."""

import jax
import jax.numpy as jnp
import numpy as np
import torch

from llm_jax.config.run import OptimConfig
from llm_jax.training.optimizer import make_optimizer
from llm_jax.training.schedule import make_horizon

RATE, DECAY, STEPS = 0.01, 0.1, 60


def test_muon_takes_the_steps_of_torch() -> None:
    """torch orthogonalises in bfloat16, so that steps agree within 2 %; and it does not correct the start of
    its momentum, as optax does, so that those from the second to the twentieth differ by up to 13 %.
    """
    rng = np.random.default_rng(0)
    start = {"mlp_up": rng.normal(size=(12, 20)), "mlp_down": rng.normal(size=(20, 12))}
    theirs = {name: torch.nn.Parameter(torch.tensor(array.T.copy()).float()) for name, array in start.items()}
    torch_muon = torch.optim.Muon(
        theirs.values(), lr=RATE, weight_decay=DECAY, adjust_lr_fn="match_rms_adamw"
    )
    optim = OptimConfig(optimizer="muon", learning_rate=RATE, weight_decay=DECAY)
    optimizer = make_optimizer(optim, make_horizon(optim, STEPS))
    ours = {"blocks": {name: {"kernel": jnp.float32(array)} for name, array in start.items()}}
    state, update = optimizer.init(ours), jax.jit(optimizer.update)
    gaps = []
    for _ in range(STEPS):
        grads = {name: rng.normal(size=array.shape) for name, array in start.items()}
        before = {name: leaf.detach().clone() for name, leaf in theirs.items()}
        for name, leaf in theirs.items():
            leaf.grad = torch.tensor(grads[name].T.copy()).float()
        torch_muon.step()
        tree = {"blocks": {name: {"kernel": jnp.float32(grad)} for name, grad in grads.items()}}
        ours = {"blocks": {name: {"kernel": jnp.asarray(leaf.numpy().T)} for name, leaf in before.items()}}
        updates, state = update(tree, state, ours)
        step = {name: (leaf.detach() - before[name]).numpy().T for name, leaf in theirs.items()}
        gaps.append(
            [
                np.linalg.norm(updates["blocks"][name]["kernel"] - step[name]) / np.linalg.norm(step[name])
                for name in step
            ]
        )
    assert max(gaps[0]) < 0.03
    assert np.max(gaps[-5:]) < 0.03
