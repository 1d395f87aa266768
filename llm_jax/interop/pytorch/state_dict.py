"""A state dict of numpy arrays in a file: .safetensors, or torch's own .pt, which is only read."""

import os
import re
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load_file, save_file

from llm_jax.base.errors import CheckpointError, writing
from llm_jax.base.files import made_whole
from llm_jax.interop.other_kinds import why_not_the_tutorials
from llm_jax.interop.pytorch.pickle_reader import read_state_dict

StateDict = dict[str, np.ndarray]
# What DataParallel, and torch.compile, put into the names of what they wrap.
_WRAPPERS = re.compile(r"^(module\.|_orig_mod\.)+|_orig_mod\.")


def read_state_dict_file(path: Path) -> StateDict:
    """Return every tensor of the file, by the name that it has in the module itself; nothing in it is
    executed.

    Raises:
        CheckpointError: there is no such file, it is damaged, or it is of another kind of model.
    """
    if not path.is_file():
        raise CheckpointError(
            f"not found: {path}; give a local Hugging Face folder, a .gguf, .safetensors or .pt file, or the "
            "name of a model on the Hugging Face hub, such as HuggingFaceTB/SmolLM2-135M-Instruct"
        )
    if path.suffix == ".pt":
        state_dict = read_state_dict(path)
        _require_ours(path, state_dict)
    else:
        try:
            with safe_open(path, framework="np") as file:
                _require_ours(path, file.keys())
            state_dict = load_file(path)
        except (SafetensorError, OSError, KeyError, TypeError) as error:
            raise CheckpointError(f"{path} cannot be read as .safetensors: {error}") from None
    names = {_WRAPPERS.sub("", name): name for name in state_dict}
    if len(names) < len(state_dict):
        twice = next(name for name in state_dict if name not in names.values())
        raise CheckpointError(f"{path} must have each tensor once, but has {_WRAPPERS.sub('', twice)} twice")
    return {name: state_dict[wrapped] for name, wrapped in names.items()}


def _require_ours(path: Path, names: Iterable[str]) -> None:
    if other := why_not_the_tutorials(path, names):
        raise CheckpointError(other)


def write_state_dict_file(state_dict: StateDict, out: Path, check: Callable[[Path], None]) -> None:
    """Write a .safetensors file that gets its name once `check` has let it pass.

    Raises:
        UserError: it cannot be written.
    """
    with writing(out), made_whole(out) as part:
        write_tensors(state_dict, part)
        check(part)


def write_tensors(tensors: StateDict, path: Path) -> None:
    """Write a .safetensors file; OSError where the system does not let it, as from any other write."""
    try:
        save_file(tensors, path, metadata={"format": "pt"})
    except SafetensorError as error:
        if code := re.search(r"os error (\d+)", str(error)):
            number = int(code[1])
            raise OSError(number, os.strerror(number), str(path)) from None
        raise
