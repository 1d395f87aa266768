"""Small states as checkpoints, and how they are compared and damaged."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from llm_jax.checkpoints.writer import Checkpoints

ABOUT = {"config": {"a": 1}, "tokenizer": {"kind": "bytes"}}


def a_state(seed: int = 0, rows: int = 16) -> dict[str, Any]:
    params = {"a": {"kernel": jax.random.normal(jax.random.key(seed), (rows, 8))}, "b": jnp.arange(8.0)}
    return {
        "params": params,
        "opt_state": optax.adamw(1e-3).init(params),
        "counters": {"step": jnp.int32(seed)},
    }


def same_bits(a: Any, b: Any) -> bool:
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return all(np.asarray(x).tobytes() == np.asarray(y).tobytes() and x.dtype == y.dtype for x, y in pairs)


def abstract(state: Any) -> Any:
    return jax.eval_shape(lambda: state)


def save_three(folder: Path) -> Path:
    with Checkpoints(folder, keep=2, about=ABOUT) as checkpoints:
        for step, score in ((1, 0.5), (2, 0.9), (3, 0.7)):
            checkpoints.save(step, a_state(step), metrics={"validation_loss": score}, score=score)
    return folder


def restored_step(folder: Path, remarks: list[str] | None = None) -> int:
    with Checkpoints(
        folder, keep=2, about=ABOUT, report=(remarks if remarks is not None else []).append
    ) as checkpoints:
        restored = checkpoints.restore(abstract(a_state()))
        assert restored is not None
        assert same_bits(restored.state, a_state(restored.step))
        return restored.step


def flip_a_bit(step: Path) -> None:
    for target in (step / "params").rglob("d/*"):  # the arrays' bytes
        raw = bytearray(target.read_bytes())
        raw[len(raw) // 2] ^= 1
        target.write_bytes(raw)
