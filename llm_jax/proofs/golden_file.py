"""The golden file: what a torch program without dropout wrote about one model, read and checked.

It holds "hyper" [vocabulary, d_model, layers, heads, context, batch], "lr", "init/NAME" start weights,
"tokens" [steps, batch, context + 1], "logits0", "loss0" and "grad0/NAME" on the first batch, "losses" of one
AdamW step a batch, "final/NAME" weights, "greedy_prompt" and "greedy" tokens. NAME is torch's.
"""

import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from llm_jax.base.errors import DataError

Arrays = dict[str, np.ndarray]
_PLAIN = ("hyper", "lr", "tokens", "logits0", "loss0", "losses", "greedy_prompt", "greedy")
_WHOLE = ("hyper", "tokens", "greedy_prompt", "greedy")


def read_golden(path: Path) -> Arrays:
    """Return the golden file's arrays, whose sizes agree and whose numbers are finite.

    Raises:
        DataError: it is not a golden file, or not a sound one.
    """
    try:
        with open(path, "rb") as file, np.lib.npyio.NpzFile(file, allow_pickle=False) as arrays:
            golden = {name: arrays[name] for name in arrays.files}
    except (OSError, ValueError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(f"{path} must be a .npz file of golden numbers: {error}") from None
    if fault := _fault(golden):
        raise DataError(f"{path} must hold golden numbers, but {fault}")
    return golden


def group(golden: Mapping[str, np.ndarray], prefix: str) -> Arrays:
    """Return the arrays under "PREFIX/", by torch's names."""
    return {
        name.removeprefix(f"{prefix}/"): array
        for name, array in golden.items()
        if name.startswith(f"{prefix}/")
    }


def _fault(golden: Arrays) -> str | None:
    """What is wrong with the arrays, the first of it; None where they are sound."""
    if missing := sorted({*_PLAIN} - golden.keys()):
        return f"lacks {', '.join(missing)}"
    if lacking := [f"{prefix}/NAME" for prefix in ("init", "grad0", "final") if not group(golden, prefix)]:
        return f"lacks {', '.join(lacking)}"
    for name, array in golden.items():
        kinds, said = ("iu", "whole numbers") if name in _WHOLE else ("fiu", "real numbers")
        if array.dtype.kind not in kinds:
            return f"{name} must be {said}, not {array.dtype}"
        if not np.isfinite(array).all():
            return f"{name} has a number that is not finite"
    if golden["hyper"].shape != (6,) or golden["hyper"].min() < 1:
        return (
            "hyper must be [vocabulary, d_model, layers, heads, context, batch], each at least 1, not "
            f"{golden['hyper'].tolist()}"
        )
    vocabulary, _, _, _, context, batch = map(int, golden["hyper"])
    steps = max(1, len(golden["tokens"]) if golden["tokens"].ndim else 0)
    wanted = {
        "lr": (),
        "tokens": (steps, batch, context + 1),
        "logits0": (batch, context, vocabulary),
        "loss0": (),
        "losses": (steps,),
    }
    for name, shape in wanted.items():
        if golden[name].shape != shape:
            return f"{name} must have shape {shape} as hyper and tokens say, not {golden[name].shape}"
    if golden["lr"] <= 0:
        return f"lr must be above 0, not {golden['lr']}"
    for name in ("tokens", "greedy_prompt", "greedy"):
        if golden[name].min(initial=0) < 0 or golden[name].max(initial=0) >= vocabulary:
            return f"{name} has ids outside the vocabulary of {vocabulary}"
    prompt, greedy = golden["greedy_prompt"].ravel(), golden["greedy"].ravel()
    if not 0 < prompt.size < greedy.size or (greedy[: prompt.size] != prompt).any():
        return "greedy must be greedy_prompt and at least one more token"
    return None
