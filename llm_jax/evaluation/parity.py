"""Proof against golden numbers: the same weights and batches through our program, and how far each number is
from torch's.

The golden file holds, for a model without dropout: "hyper" [vocabulary, d_model, layers, heads, context,
batch], "lr", "init/NAME" start weights, "tokens" [steps, batch, context + 1], "logits0", "loss0" and
"grad0/NAME" on the first batch, "losses" of one AdamW step a batch, "final/NAME" weights, "greedy_prompt" and
"greedy" tokens. NAME is torch's. What computes is passed in.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from llm_jax.errors import DataError

Arrays = dict[str, np.ndarray]


class Program(NamedTuple):
    """The program under proof; weights and gradients go by torch's names."""

    logits: Callable[[Arrays, np.ndarray], np.ndarray]  # weights, tokens [B, T] -> [B, T, V]
    loss_and_gradients: Callable[[Arrays, np.ndarray], tuple[float, Arrays]]  # weights, tokens [B, T + 1]
    train: Callable[
        [Arrays, np.ndarray, float], tuple[np.ndarray, Arrays]
    ]  # weights, batches, rate -> losses, weights
    greedy: Callable[[Arrays, np.ndarray, int], np.ndarray]  # weights, prompt, tokens in all -> tokens


class Row(NamedTuple):
    """One comparison."""

    quantity: str
    absolute: float  # largest absolute difference
    relative: float  # the same, relative to the largest value of its own tensor
    bound: str  # what must hold; empty where the figure is for information
    holds: bool


def read_golden(path: Path) -> Arrays:
    """The golden file's arrays. DataError when it is not one."""
    try:
        with np.load(path, allow_pickle=False) as file:
            golden = {name: file[name] for name in file.files}
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{path} must be a .npz file of golden numbers: {error}") from None
    needed = {"hyper", "lr", "tokens", "logits0", "loss0", "losses", "greedy_prompt", "greedy"}
    if missing := sorted(needed - golden.keys()):
        raise DataError(f"{path} must hold golden numbers, but lacks {', '.join(missing)}")
    return golden


def compare(golden: Arrays, program: Program, *, bounded: bool) -> list[Row]:
    """Every number of the golden file beside ours.

    Args:
        golden: as `read_golden` gives it.
        program: ours, in one precision.
        bounded: whether the bounds apply (float32), or the figures are for information (float64 beside
            torch's float32).
    """
    weights, tokens = _group(golden, "init/"), golden["tokens"]
    rows = [
        _row(
            "logits", program.logits(weights, tokens[0][:, :-1]), golden["logits0"], "absolute", 3e-6, bounded
        )
    ]
    loss, gradients = program.loss_and_gradients(weights, tokens[0])
    rows.append(_row("loss", np.array(loss), golden["loss0"], "absolute", 3e-6, bounded))
    wanted = _group(golden, "grad0/")
    if missing := sorted(wanted.keys() - gradients.keys()):
        raise DataError(f"the golden file has gradients that this model has not: {missing[0]}")
    each = [_row(name, gradients[name], wanted[name], "relative", 1e-5, bounded) for name in wanted]
    rows.append(_worst(f"{len(each)} gradients", each))
    losses, final = program.train(weights, tokens, float(golden["lr"]))
    rows.append(_row(f"{len(losses)} AdamW losses", losses, golden["losses"], "absolute", 1e-5, bounded))
    each = [
        _row(name, final[name], tensor, "none", 0, False) for name, tensor in _group(golden, "final/").items()
    ]
    rows.append(_worst("weights after them", each))
    greedy = program.greedy(_group(golden, "final/"), golden["greedy_prompt"], golden["greedy"].size)
    different = int(np.sum(greedy.ravel() != golden["greedy"].ravel()))
    rows.append(
        Row("greedy tokens that differ", different, different / golden["greedy"].size, "0", different == 0)
    )
    return rows


def _group(golden: Mapping[str, np.ndarray], prefix: str) -> Arrays:
    return {name.removeprefix(prefix): array for name, array in golden.items() if name.startswith(prefix)}


def _row(name: str, got: Any, wanted: np.ndarray, kind: str, bound: float, bounded: bool) -> Row:
    got = np.asarray(got, np.float64)
    if got.shape != wanted.shape:
        raise DataError(f"{name} has shape {got.shape}, the golden file has {wanted.shape}")
    absolute = float(np.max(np.abs(got - wanted), initial=0))
    relative = absolute / max(float(np.max(np.abs(wanted), initial=0)), 1e-30)
    if not bounded:
        return Row(name, absolute, relative, "", True)
    figure = {"absolute": absolute, "relative": relative}[kind]
    return Row(name, absolute, relative, f"{kind} <= {bound:g}", bool(figure <= bound))


def _worst(name: str, rows: list[Row]) -> Row:
    worst = max(rows, key=lambda row: row.relative)
    return Row(
        f"{name} (worst: {worst.quantity})",
        max(row.absolute for row in rows),
        worst.relative,
        worst.bound,
        all(row.holds for row in rows),
    )
