"""Golden numbers of a small tutorial, as tests/support/data has them for those without the real tutorial's.

python -m tests.parity.write_golden tests/support/data/torch_tutorial_golden.npz
"""

import sys
from pathlib import Path

import numpy as np
import torch

from tests.parity.torch_tutorial import TorchTutorial

HYPER = {"vocab_size": 23, "d_model": 32, "num_layers": 2, "num_heads": 4, "context_length": 16, "batch": 4}
STEPS, RATE, GREEDY = 30, 1e-3, 29


def write_golden(path: Path) -> None:
    """Runs the tutorial's torch model and writes its numbers: see `llm_jax.proofs.golden_file`."""
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    *sizes, batch = HYPER.values()
    model = TorchTutorial(*sizes, dropout=0.0)
    words = rng.integers(0, sizes[0], (12, 4))  # so that there is something to learn
    tokens = words[rng.integers(0, 12, (STEPS, batch, 5))].reshape(STEPS, batch, 20)[..., : sizes[-1] + 1]
    numbers = {
        "hyper": np.array(list(HYPER.values())),
        "lr": np.array(RATE),
        "tokens": tokens.astype(np.int32),
    }
    numbers |= {f"init/{name}": value.detach().numpy().copy() for name, value in model.named_parameters()}
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE)
    losses = []
    for step, rows in enumerate(torch.tensor(tokens)):
        logits, loss = model(rows[:, :-1]), model.loss(rows[:, :-1], rows[:, 1:])
        optimizer.zero_grad()
        loss.backward()
        if step == 0:
            numbers |= {"logits0": logits.detach().numpy(), "loss0": np.array(loss.item())}
            numbers |= {
                f"grad0/{name}": value.grad.numpy().copy() for name, value in model.named_parameters()
            }
        optimizer.step()
        losses.append(loss.item())
    prompt = tokens[0, 0, :5].astype(np.int32)
    greedy = model.generate(torch.tensor(prompt[None]).long(), GREEDY - prompt.size, greedy=True)
    numbers |= {f"final/{name}": value.detach().numpy() for name, value in model.named_parameters()}
    numbers |= {
        "losses": np.array(losses),
        "greedy_prompt": prompt,
        "greedy": greedy[0].numpy().astype(np.int32),
    }
    np.savez_compressed(path, **numbers)


if __name__ == "__main__":
    write_golden(Path(sys.argv[1]))
