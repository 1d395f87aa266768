"""A state dict of numpy arrays in a file: .safetensors, or torch's own .pt, which is only read."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from llm_jax.errors import CheckpointError, UserError
from llm_jax.interop.pickle_reader import read_state_dict

StateDict = dict[str, np.ndarray]


def read_state_dict_file(path: Path) -> StateDict:
    """Every tensor of the file; nothing in it is executed.

    Raises:
        CheckpointError: there is no such file, or it is damaged.
    """
    if not path.is_file():
        raise CheckpointError(f"{path} must be a .safetensors or .pt file that exists")
    if path.suffix == ".pt":
        return read_state_dict(path)
    try:
        return load_file(path)
    except (SafetensorError, OSError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path} cannot be read as .safetensors: {error}") from None


def write_state_dict_file(state_dict: StateDict, out: Path, check: Callable[[Path], None]) -> None:
    """Writes a .safetensors file that gets its name once `check` has let it pass.

    Raises:
        UserError: it cannot be written.
    """
    part = out.with_name(out.name + ".part")
    try:
        save_file(state_dict, part, metadata={"format": "pt"})
        check(part)
        part.replace(out)
    except OSError as error:
        raise UserError(f"{out} cannot be written: {error}") from None
