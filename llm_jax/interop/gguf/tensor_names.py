"""llama.cpp's names of tensors in Hugging Face's, and what its converter does to a tensor, in both
directions.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

_LINEARS = {
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_MLP = ("ffn_gate", "ffn_up", "ffn_down")
_QKV = ("attn_q", "attn_k", "attn_v")
_HEAD_NORMS = {"attn_q_norm": "self_attn.q_norm", "attn_k_norm": "self_attn.k_norm"}
_NORMS_BEFORE = {"attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm"}
_NORMS_BOTH = {
    "attn_norm": "input_layernorm",
    "post_attention_norm": "post_attention_layernorm",
    "ffn_norm": "pre_feedforward_layernorm",
    "post_ffw_norm": "post_feedforward_layernorm",
}


# GPT-2's parts of a layer; its matrices are [in, out] in Hugging Face's files.
_GPT2_PARTS = {
    "attn_norm": "ln_1",
    "attn_qkv": "attn.c_attn",
    "attn_output": "attn.c_proj",
    "ffn_norm": "ln_2",
    "ffn_up": "mlp.c_fc",
    "ffn_down": "mlp.c_proj",
}


class Origin(NamedTuple):
    """Where a tensor of Hugging Face's comes from, and what was done to it there."""

    name: str  # in the GGUF file
    shape: tuple[int, ...]  # in Hugging Face's
    paired_heads: int = 0  # rows of so many heads were put in pairs that are turned together
    plus_one: bool = False  # 1 was added
    transposed: bool = False

    @property
    def stored_shape(self) -> tuple[int, ...]:
        """In the GGUF file."""
        return self.shape[::-1] if self.transposed else self.shape


def undo(tensor: np.ndarray, origin: Origin) -> np.ndarray:
    """Return Hugging Face's tensor of llama.cpp's."""
    if origin.plus_one:
        return tensor - np.float32(1)
    if origin.transposed:
        return np.ascontiguousarray(tensor.T)
    if origin.paired_heads:
        # Rows 0, 1, 2, 3, ... of a head of width H are Hugging Face's 0, H/2, 1, H/2 + 1, ...: llama.cpp
        # turns neighbours, Hugging Face an entry and the one half a head further on.
        pairs = tensor.reshape(origin.paired_heads, -1, 2, *tensor.shape[1:])
        return np.ascontiguousarray(pairs.swapaxes(1, 2)).reshape(tensor.shape)
    return tensor


def redo(tensor: np.ndarray, origin: Origin) -> np.ndarray:
    """Return llama.cpp's tensor of Hugging Face's, as its converter makes it; 1 is added in float32, and
    rounded.
    """
    if origin.plus_one:
        return tensor.astype(np.float32) + np.float32(1)
    if origin.transposed:
        return np.ascontiguousarray(tensor.T)
    if origin.paired_heads:
        halves = tensor.reshape(origin.paired_heads, 2, -1, *tensor.shape[1:])
        return np.ascontiguousarray(halves.swapaxes(1, 2)).reshape(tensor.shape)
    return tensor


class _Family(NamedTuple):
    norms: dict[str, str]
    paired: bool = False
    plus_one: bool = False


_FAMILIES = {
    "llama": _Family(_NORMS_BEFORE, paired=True),
    "qwen2": _Family(_NORMS_BEFORE),
    "qwen3": _Family(_NORMS_BEFORE | _HEAD_NORMS),
    "gemma2": _Family(_NORMS_BOTH, plus_one=True),
    "gemma3": _Family(_NORMS_BOTH | _HEAD_NORMS, plus_one=True),
}


def origins(arch: str, config: Mapping[str, Any]) -> dict[str, Origin]:
    """Return Hugging Face's name -> where its tensor comes from, for every tensor that such a model has."""
    if arch == "gpt2":
        return _gpt2(config)
    family = _FAMILIES[arch]
    width, mlp, head_dim = config["hidden_size"], config["intermediate_size"], config["head_dim"]
    heads, kv_heads = config["num_attention_heads"], config["num_key_value_heads"]
    shape = {
        "attn_q": (heads * head_dim, width),
        "attn_k": (kv_heads * head_dim, width),
        "attn_v": (kv_heads * head_dim, width),
        "attn_output": (width, heads * head_dim),
        "ffn_gate": (mlp, width),
        "ffn_up": (mlp, width),
        "ffn_down": (width, mlp),
        **dict.fromkeys(family.norms, (width,)),
        **dict.fromkeys(family.norms.keys() & _HEAD_NORMS, (head_dim,)),
    }
    biases = _QKV if arch == "qwen2" else ()
    if arch == "llama":
        biases = (*_QKV, "attn_output") * config["attention_bias"] + _MLP * config["mlp_bias"]
    paired = {"attn_q": heads, "attn_k": kv_heads} if family.paired else {}
    table = (config["vocab_size"], width)
    found = {"model.embed_tokens.weight": Origin("token_embd.weight", table)}
    for layer in range(config["num_hidden_layers"]):
        ours, theirs = f"model.layers.{layer}.", f"blk.{layer}."
        for part, name in _LINEARS.items():
            pairs = paired.get(part, 0)
            found[f"{ours}{name}.weight"] = Origin(f"{theirs}{part}.weight", shape[part], pairs)
            if part in biases:
                found[f"{ours}{name}.bias"] = Origin(f"{theirs}{part}.bias", shape[part][:1], pairs)
        for part, name in family.norms.items():
            found[f"{ours}{name}.weight"] = Origin(
                f"{theirs}{part}.weight", shape[part], plus_one=family.plus_one
            )
    found["model.norm.weight"] = Origin("output_norm.weight", (width,), plus_one=family.plus_one)
    if not config["tie_word_embeddings"]:
        found["lm_head.weight"] = Origin("output.weight", table)
    return found


def _gpt2(config: Mapping[str, Any]) -> dict[str, Origin]:
    width, mlp, table = config["n_embd"], config["n_inner"], (config["vocab_size"], config["n_embd"])
    # [in, out] of matrices, and the one width of norms.
    shape = {
        "attn_norm": (width,),
        "attn_qkv": (width, 3 * width),
        "attn_output": (width, width),
        "ffn_norm": (width,),
        "ffn_up": (width, mlp),
        "ffn_down": (mlp, width),
    }
    found = {
        "transformer.wte.weight": Origin("token_embd.weight", table),
        "transformer.wpe.weight": Origin("position_embd.weight", (config["n_positions"], width)),
    }
    for layer in range(config["n_layer"]):
        for part, name in _GPT2_PARTS.items():
            ours, theirs = f"transformer.h.{layer}.{name}", f"blk.{layer}.{part}"
            matrix = len(shape[part]) == 2
            found[f"{ours}.weight"] = Origin(f"{theirs}.weight", shape[part], transposed=matrix)
            found[f"{ours}.bias"] = Origin(f"{theirs}.bias", shape[part][-1:])
    for kind in ("weight", "bias"):
        found[f"transformer.ln_f.{kind}"] = Origin(f"output_norm.{kind}", (width,))
    if not config["tie_word_embeddings"]:
        found["lm_head.weight"] = Origin("output.weight", table)
    return found
