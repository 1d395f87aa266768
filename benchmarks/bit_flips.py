"""Single-bit flips over all files of a checkpoint, against the promise that damage is never loaded silently.

python benchmarks/bit_flips.py --flips 200

Each flip is made in a copy, which is then read whole. It is "refused" (an error names the damage), "harmless"
(every bit of the state and of what the checkpoint says of itself is as it was saved) or "silent" (it loads
and differs). The last line is JSON; exit status 1 if a flip was silent.
"""

import argparse
import json
import random
import shutil
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import jax
import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
from llm_jax.base.errors import CheckpointError
from llm_jax.checkpoints.reader import read_about, read_state
from llm_jax.checkpoints.writer import Checkpoints
from llm_jax.config.model import ModelConfig
from llm_jax.config.run import Config, OptimConfig
from llm_jax.training.state import init_state


def make_checkpoint(directory: Path) -> None:
    """A whole training state: parameters, optimizer, average, counters."""
    model = ModelConfig(vocab_size=997, d_model=64, num_layers=2, num_heads=4)
    state = init_state(Config(model=model, optim=OptimConfig(ema_decay=0.99)))
    with Checkpoints(directory, keep=2, about={"config": {"d_model": 64}}) as checkpoints:
        checkpoints.save(7, state, metrics={"validation_loss": 3.25}, score=3.25)


def flip_bit(path: Path, chance: random.Random) -> None:
    """Changes one bit of a file."""
    content = bytearray(path.read_bytes())
    content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
    path.write_bytes(content)


def outcome(directory: Path, state: Any, about: dict[str, Any]) -> str:
    """What reading a damaged copy comes to."""
    try:
        read, said = read_state(directory), read_about(directory)
    except CheckpointError:
        return "refused"
    same = jax.tree.structure(read) == jax.tree.structure(state) and all(
        np.asarray(a).dtype == np.asarray(b).dtype and np.asarray(a).tobytes() == np.asarray(b).tobytes()
        for a, b in zip(jax.tree.leaves(read), jax.tree.leaves(state), strict=True)
    )
    return "harmless" if same and said == about else "silent"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--flips", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    chance = random.Random(arguments.seed)
    with tempfile.TemporaryDirectory() as name:
        sound, copy = Path(name) / "sound", Path(name) / "copy"
        make_checkpoint(sound)
        state, about = read_state(sound), read_about(sound)
        files = sorted(path.relative_to(sound) for path in (sound / "7").rglob("*") if path.is_file())
        files = [file for file in files if (sound / file).stat().st_size]
        outcomes: dict[str, Counter[str]] = {}
        for number in range(arguments.flips):
            file = files[number % len(files)]
            shutil.copytree(sound, copy)
            flip_bit(copy / file, chance)
            outcomes.setdefault(str(file), Counter())[outcome(copy, state, about)] += 1
            shutil.rmtree(copy)
    for file, counted in outcomes.items():
        print(f"{file:70} {dict(counted)}")
    total = sum(outcomes.values(), Counter())
    print(json.dumps({"holds": not total["silent"], "flips": total.total(), "files": len(files), **total}))
    if total["silent"]:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
