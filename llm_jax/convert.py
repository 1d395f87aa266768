"""Door: `python -m llm_jax.convert import SRC OUT` and `convert export DIR OUT`."""

from pathlib import Path
from typing import Any, Literal

from cyclopts import App

from llm_jax import command
from llm_jax.config import Config
from llm_jax.errors import CheckpointError, UserError
from llm_jax.settings import to_dict

convert = App(
    name="convert",
    help="Brings weights of the torch tutorial in, and takes them out again. "
    "Every file that is written is read again and compared.",
)


@convert.command(name="import")
def import_(
    source: Path,
    out: Path,
    /,
    *,
    tokenizer: Literal["cl100k_base", "gpt2", "o200k_base", "bytes"] = "cl100k_base",
) -> None:
    """Turns a state dict of the torch tutorial into a directory for generate, evaluate and llm_jax.load.

    Parameters
    ----------
    source:
        A `.safetensors` file, or a `.pt` file as torch.save(model.state_dict()) writes; it is read without
        executing anything.
    out:
        Directory to make; must not exist.
    tokenizer:
        The tokenizer that the model was trained with.
    """
    import numpy as np

    from llm_jax.data.tokenizers import ByteTokenizer, named_tokenizer
    from llm_jax.interop.torch_tutorial import import_params, infer_config
    from llm_jax.trained import load
    from llm_jax.training.checkpoint import Checkpoints
    from llm_jax.training.record import versions

    _require_new(out)
    state_dict = _read(source)
    model = infer_config(state_dict)
    params = import_params(state_dict, model)
    if odd := [name for name, tensor in state_dict.items() if tensor.dtype != np.float32]:
        raise CheckpointError(
            f"{source} must hold float32 tensors, but {odd[0]} is {state_dict[odd[0]].dtype}"
        )
    chosen = ByteTokenizer() if tokenizer == "bytes" else named_tokenizer(tokenizer)
    if chosen.vocab_size < model.vocab_size:
        raise UserError(
            f"the tokenizer must have the model's {model.vocab_size:,} ids, but {tokenizer} has "
            f"{chosen.vocab_size:,}; give another --tokenizer"
        )
    about = {
        "config": to_dict(Config(model=model)),
        "tokenizer": chosen.to_dict(),
        "data_fingerprint": None,
        "versions": versions(),
    }
    with Checkpoints(out / "checkpoints", keep=2, about=about) as checkpoints:
        checkpoints.save(0, {"params": _on_device(params)}, metrics={}, score=None)
    _require_equal(params, load(out).params, out)
    count = sum(tensor.size for name, tensor in state_dict.items() if not name.endswith("tril"))
    print(f"imported {count:,} parameters into {out}; read again, every bit is equal")


@convert.command
def export(directory: Path, out: Path, /, *, format: Literal["torch_tutorial"] = "torch_tutorial") -> None:
    """Writes a model as a `.safetensors` file that the torch tutorial's module loads.

    Parameters
    ----------
    directory:
        A run directory, or one that `convert import` made.
    out:
        The file to write; must not exist and must end in .safetensors.
    format:
        torch_tutorial: the tutorial's own state dict names (only for models of its architecture).
    """
    from safetensors.numpy import save_file

    from llm_jax.interop.torch_tutorial import export_state_dict, import_params
    from llm_jax.trained import load

    if out.suffix != ".safetensors":
        raise UserError(f"the file to write must end in .safetensors, got {out}")
    _require_new(out)
    model = load(directory)
    state_dict = export_state_dict(model.params, model.config)
    part = out.with_name(out.name + ".part")
    try:
        save_file(state_dict, part, metadata={"format": "pt"})
        _require_equal(import_params(_read(part), model.config), model.params, part)
        part.replace(out)
    except OSError as error:
        raise UserError(f"{out} cannot be written: {error}") from None
    print(f"exported {out} ({format}); read again, every bit is equal")


def _read(source: Path) -> dict[str, Any]:
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    from llm_jax.interop.pickle_reader import read_state_dict

    if not source.is_file():
        raise CheckpointError(f"{source} must be a .safetensors or .pt file that exists")
    if source.suffix == ".pt":
        return read_state_dict(source)
    try:
        return load_file(source)
    except (SafetensorError, OSError, KeyError, TypeError) as error:
        raise CheckpointError(f"{source} cannot be read as .safetensors: {error}") from None


def _require_new(path: Path) -> None:
    if path.exists():
        raise UserError(f"{path} must not exist yet; give another name, or remove it")


def _on_device(params: Any) -> Any:
    import jax

    return jax.tree.map(jax.numpy.asarray, params)


def _require_equal(got: Any, wanted: Any, where: Path) -> None:
    import numpy as np

    from llm_jax.tree import flatten

    others = dict(flatten(wanted))
    if odd := [
        path for path, leaf in flatten(got) if not np.array_equal(np.asarray(leaf), np.asarray(others[path]))
    ]:
        raise CheckpointError(f"{where} does not hold the bits that were written: {odd[0]} differs")


if __name__ == "__main__":
    command.run(convert)
