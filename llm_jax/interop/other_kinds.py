"""What to do with a folder or a file of another kind than was asked for, each in a line."""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from llm_jax.interop.source import quoted

_PICKLES = (".bin", ".pt", ".pth", ".pkl", ".ckpt")
_ADAPTER = "adapter_config.json"
_QUANTIZED = ("quantization_config", "compression_config", "quantization")
_HUGGING_FACE = re.compile(r"(^|\.)(layers|h|blocks)\.\d+\.|(^|\.)(embed_tokens|wte|lm_head)\.")


def why_no_config(folder: Path) -> str:
    """Of a folder that was given for a model, but has no config.json."""
    if (folder / _ADAPTER).exists():
        return _only_an_adapter(folder)
    if ggufs := _named(folder, ".gguf"):
        return f"{folder} must hold config.json, but has a GGUF file; give that: {folder / ggufs[0]}"
    if snapshots := sorted(folder.glob("snapshots/*/config.json")):
        return f"{folder} must hold config.json; give the snapshot in it: {snapshots[0].parent}"
    if weights := _named(folder, ".safetensors"):
        return (
            f"{folder} must hold config.json beside {quoted(weights[0])}; "
            "copy it, and tokenizer.json, from where the weights came from"
        )
    return f"{folder} must hold config.json"


def why_no_weights(folder: Path, wanted: str, other: str = "") -> str:
    """Of a folder without the wanted file, nor another that serves."""
    if "adapter" not in wanted and (folder / _ADAPTER).exists():
        return _only_an_adapter(folder)
    if pickles := _named(folder, *_PICKLES):
        return (
            f"{folder} must hold {wanted}, but has only {quoted(pickles[0])}, a pickle, which can run any "
            "code and is never read; save the model as .safetensors with the program that made it"
        )
    return f"{folder} must hold {wanted}{other}"


def why_no_adapter(folder: Path) -> str:
    """Of a folder that was given for an adapter, but has no adapter_config.json."""
    if (folder / "config.json").exists():
        return f"{folder} must hold {_ADAPTER}, but is a model; give the folder that peft saved as --adapter"
    return f"{folder} must hold {_ADAPTER}, as peft saves it"


def why_quantized(config: Mapping[str, Any]) -> str | None:
    """Of a model whose weights are codes for numbers; None for one whose weights are numbers."""
    if not (found := next((name for name in _QUANTIZED if config.get(name)), "")):
        return None
    method = config[found].get("quant_method") if isinstance(config[found], dict) else None
    if method == "bitsandbytes":
        todo = "load it in transformers, call model.dequantize() and save_pretrained, and import that"
    else:
        todo = "take the repository that it was made from, or a .gguf file of the model"
    kind = f" with {quoted(method)}" if method else ""
    return f"{found} must be absent: the weights are quantized{kind}, which is not supported; {todo}"


def why_not_the_tutorials(path: Path, names: Iterable[str]) -> str | None:
    """Of a file of weights, by the names of its tensors; None for one that is not known either."""
    names = list(names)
    if any(".lora_" in name for name in names):
        return f"{path} holds a LoRA adapter; give its model's folder, and --adapter {path.parent}"
    if any(_HUGGING_FACE.search(name) for name in names):
        return (
            f"{path} holds weights of a Hugging Face model, which need the files beside them; "
            f"give the folder: {path.parent}"
        )
    return None


def _only_an_adapter(folder: Path) -> str:
    return (
        f"{folder} holds only a LoRA adapter; give the folder of the model that it was trained on, "
        f"and --adapter {folder}"
    )


def _named(folder: Path, *suffixes: str) -> list[str]:
    return sorted(file.name for file in folder.iterdir() if file.suffix in suffixes)
