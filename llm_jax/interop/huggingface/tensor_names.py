"""Hugging Face's tensors and our parameters, in both directions, one tensor at a time.

Legend: D d_model, N query heads, K key/value heads, H head_dim, F MLP width, V vocabulary, L layers.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from llm_jax.base.errors import CheckpointError
from llm_jax.base.tree import Tree, flatten, unflatten
from llm_jax.config.model import ModelConfig
from llm_jax.model.decoder import abstract_params


class _Tensor(NamedTuple):
    """One of their tensors as ours: its rows, or entries, are those of our leaves one after the other."""

    name: str  # with {} for the numbers of the layer and, among experts, of the expert
    leaves: tuple[str, ...]
    out_first: bool  # [out, in], as torch's linear layers; ours are [in, out]


def _tensor(name: str, *leaves: str, out_first: bool = True) -> _Tensor:
    return _Tensor(name, leaves, out_first)


def _linear(name: str, *leaves: str) -> list[_Tensor]:
    """A projection, its bias included."""
    return [
        _tensor(f"{name}.{theirs}", *(f"{leaf}/{ours}" for leaf in leaves))
        for theirs, ours in (("weight", "kernel"), ("bias", "bias"))
    ]


_LAYER = "model.layers.{}"
_ENDS = [
    _tensor("model.embed_tokens.weight", "token_embedding/embedding", out_first=False),
    _tensor("model.norm.weight", "final_norm/scale"),
    _tensor("lm_head.weight", "head/kernel"),
]
_ATTENTION = [
    *_linear(f"{_LAYER}.self_attn.q_proj", "blocks/query"),
    *_linear(f"{_LAYER}.self_attn.k_proj", "blocks/key"),
    *_linear(f"{_LAYER}.self_attn.v_proj", "blocks/value"),
    *_linear(f"{_LAYER}.self_attn.o_proj", "blocks/attention_output"),
    _tensor(f"{_LAYER}.self_attn.q_norm.weight", "blocks/query_norm/scale"),
    _tensor(f"{_LAYER}.self_attn.k_norm.weight", "blocks/key_norm/scale"),
]
_SPLIT = [
    *_ATTENTION,
    *_linear(f"{_LAYER}.mlp.gate_proj", "blocks/mlp_gate"),
    *_linear(f"{_LAYER}.mlp.up_proj", "blocks/mlp_up"),
    *_linear(f"{_LAYER}.mlp.down_proj", "blocks/mlp_down"),
]
_FUSED = [
    *_linear(f"{_LAYER}.self_attn.qkv_proj", "blocks/query", "blocks/key", "blocks/value"),
    *_linear(f"{_LAYER}.self_attn.o_proj", "blocks/attention_output"),
    *_linear(f"{_LAYER}.mlp.gate_up_proj", "blocks/mlp_gate", "blocks/mlp_up"),
    *_linear(f"{_LAYER}.mlp.down_proj", "blocks/mlp_down"),
]
_BEFORE = [
    _tensor(f"{_LAYER}.input_layernorm.weight", "blocks/norm_1/scale"),
    _tensor(f"{_LAYER}.post_attention_layernorm.weight", "blocks/norm_2/scale"),
]
_AFTER = [
    _tensor(f"{_LAYER}.post_attention_layernorm.weight", "blocks/attention_output_norm/scale"),
    _tensor(f"{_LAYER}.post_feedforward_layernorm.weight", "blocks/mlp_output_norm/scale"),
]
_BOTH = [
    *_AFTER,
    _tensor(f"{_LAYER}.input_layernorm.weight", "blocks/norm_1/scale"),
    _tensor(f"{_LAYER}.pre_feedforward_layernorm.weight", "blocks/norm_2/scale"),
]
_GPT2_LAYER = "transformer.h.{}"
_GPT2 = [
    _tensor("transformer.wte.weight", "token_embedding/embedding", out_first=False),
    _tensor("transformer.wpe.weight", "position_embedding/embedding", out_first=False),
    _tensor("lm_head.weight", "head/kernel"),
    *(
        _tensor(f"{theirs}.{part}", f"{ours}/{leaf}")
        for theirs, ours in (
            ("transformer.ln_f", "final_norm"),
            (f"{_GPT2_LAYER}.ln_1", "blocks/norm_1"),
            (f"{_GPT2_LAYER}.ln_2", "blocks/norm_2"),
        )
        for part, leaf in (("weight", "scale"), ("bias", "bias"))
    ),
    *(
        _tensor(
            f"{_GPT2_LAYER}.{theirs}.{part}", *(f"blocks/{name}/{leaf}" for name in ours), out_first=False
        )
        for theirs, ours in (
            ("attn.c_attn", ("query", "key", "value")),
            ("attn.c_proj", ("attention_output",)),
            ("mlp.c_fc", ("mlp_up",)),
            ("mlp.c_proj", ("mlp_down",)),
        )
        for part, leaf in (("weight", "kernel"), ("bias", "bias"))
    ),
]


def _experts(mlp: str, gate: str, up: str, down: str) -> list[_Tensor]:
    """Attention, and a mixture of experts under these names."""
    names = {"mlp_gate": gate, "mlp_up": up, "mlp_down": down}
    each = [
        _tensor(f"{_LAYER}.{mlp}.experts.{{}}.{theirs}.weight", f"blocks/{ours}/kernel")
        for ours, theirs in names.items()
    ]
    return [*_ATTENTION, _tensor(f"{_LAYER}.{mlp}.gate.weight", "blocks/router/kernel"), *each]


_TABLES = {
    "gpt2": _GPT2,
    "llama": [*_ENDS, *_SPLIT, *_BEFORE],
    "mistral": [*_ENDS, *_SPLIT, *_BEFORE],
    "qwen2": [*_ENDS, *_SPLIT, *_BEFORE],
    "qwen3": [*_ENDS, *_SPLIT, *_BEFORE],
    "gemma2": [*_ENDS, *_SPLIT, *_BOTH],
    "gemma3_text": [*_ENDS, *_SPLIT, *_BOTH],
    "olmo2": [*_ENDS, *_SPLIT, *_AFTER],
    "phi3": [*_ENDS, *_FUSED, *_BEFORE],
    "mixtral": [*_ENDS, *_experts("block_sparse_moe", "w1", "w3", "w2"), *_BEFORE],
    "qwen3_moe": [*_ENDS, *_experts("mlp", "gate_proj", "up_proj", "down_proj"), *_BEFORE],
}
_ALIGNMENT = 64  # bytes


class Part(NamedTuple):
    """One of their tensors, in the model at hand."""

    name: str
    shape: tuple[int, ...]
    leaves: tuple[str, ...]  # paths of ours
    at: tuple[int, ...]  # into those leaves: none, a layer, or a layer and an expert
    out_first: bool


def parts(family: str, config: ModelConfig) -> Iterator[Part]:
    """Return every tensor of a model of this family, in the order of the layers."""
    shapes = {path: leaf.shape for path, leaf in flatten(abstract_params(config))}
    for tensor in _TABLES[family]:
        if tensor.leaves[0] not in shapes:
            continue
        stacked = tensor.name.count("{}")
        flat = [_flat(path, shapes[path][stacked:]) for path in tensor.leaves]
        shape = (*flat[0][:-1], sum(each[-1] for each in flat))
        for index in np.ndindex(shapes[tensor.leaves[0]][:stacked]):
            yield Part(
                tensor.name.format(*index),
                shape[::-1] if tensor.out_first else shape,
                tensor.leaves,
                index,
                tensor.out_first,
            )


def import_params(
    family: str,
    config: ModelConfig,
    shapes: Mapping[str, tuple[int, ...]],
    read: Callable[[str], np.ndarray],
    progress: Callable[[Iterator[Part], int], Iterator[Part]] = lambda all_parts, _: all_parts,
) -> Tree:
    """Return our parameters; every tensor is read once, when its turn comes, and used.

    Args:
        family: config.json's model_type.
        config: what `families.read_model_config` made of config.json.
        shapes: of every tensor that there is.
        read: one tensor by its name.
        progress: shows how far it is: given the parts and their number, passes the parts on.

    Raises:
        CheckpointError: a tensor is missing, left over, or of another shape.
    """
    wanted = list(parts(family, config))
    their_names = require_fit(wanted, shapes, config)
    leaves = {path: _aligned(leaf.shape, leaf.dtype) for path, leaf in flatten(abstract_params(config))}
    for part, targets, pieces in _cut(progress(iter(wanted), len(wanted)), their_names, leaves, read):
        for target, piece in zip(targets, pieces, strict=True):
            target[...] = piece
            if not np.isfinite(target).all():
                raise CheckpointError(f"{their_names[part.name]} must hold finite numbers alone")
    if "lm_head.weight" in their_names and config.tied_head:
        head = read(their_names["lm_head.weight"]).astype(config.param_dtype)
        if not np.array_equal(head, leaves["token_embedding/embedding"]):
            raise CheckpointError("lm_head.weight must equal the embedding where tie_word_embeddings is true")
    return unflatten(leaves)


def require_tensors(
    family: str,
    config: ModelConfig,
    params: Tree,
    shapes: Mapping[str, tuple[int, ...]],
    read: Callable[[str], np.ndarray],
    progress: Callable[[Iterator[Part], int], Iterator[Part]] = lambda all_parts, _: all_parts,
) -> None:
    """Raise CheckpointError unless `params` hold the numbers of every tensor, each read once more.

    Args: as for `import_params`, which made the parameters.
    """
    wanted = list(parts(family, config))
    their_names = require_fit(wanted, shapes, config)
    leaves = {path: np.asarray(leaf) for path, leaf in flatten(params)}
    for part, targets, pieces in _cut(progress(iter(wanted), len(wanted)), their_names, leaves, read):
        for target, piece in zip(targets, pieces, strict=True):
            if not np.array_equal(target, piece.astype(target.dtype, copy=False)):
                raise CheckpointError(f"what was written differs from {their_names[part.name]}")


def _cut(
    wanted: Iterator[Part],
    their_names: Mapping[str, str],
    leaves: Mapping[str, np.ndarray],
    read: Callable[[str], np.ndarray],
) -> Iterator[tuple[Part, list[np.ndarray], list[np.ndarray]]]:
    """Each tensor with the places in our leaves that it fills, and what belongs there, in their shapes."""
    for part in wanted:
        tensor = read(their_names[part.name])
        ours = tensor.T if part.out_first else tensor
        targets = [leaves[path][part.at] for path in part.leaves]
        widths = [_flat(path, target.shape)[-1] for path, target in zip(part.leaves, targets, strict=True)]
        pieces = np.split(ours, np.cumsum(widths)[:-1], axis=-1)
        shaped = [piece.reshape(target.shape) for piece, target in zip(pieces, targets, strict=True)]
        yield part, targets, shaped


def _aligned(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """An empty array where XLA on a CPU takes it for its own; elsewhere it makes a copy."""
    size = math.prod(shape) * dtype.itemsize
    memory = np.empty(size + _ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % _ALIGNMENT
    return memory[start : start + size].view(dtype).reshape(shape)


def export_tensors(family: str, config: ModelConfig, params: Tree) -> Iterator[tuple[str, np.ndarray]]:
    """Return their tensors by name, one after the other; `import_params` makes the same bits of them."""
    leaves = dict(flatten(params))
    for part in parts(family, config):
        columns = []
        for path in part.leaves:
            leaf = leaves[path][part.at]
            columns.append(np.asarray(leaf).reshape(_flat(path, leaf.shape)))
        joined = np.concatenate(columns, axis=-1)
        yield part.name, np.ascontiguousarray(joined.T if part.out_first else joined)


def _flat(path: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    """A leaf of one layer as their matrix [in, out] or vector."""
    if not path.endswith("/kernel"):
        return (math.prod(shape),) if path.endswith(("/bias", "/scale")) else shape
    inputs = shape[:-1] if path == "blocks/attention_output/kernel" else shape[:1]
    return math.prod(inputs), math.prod(shape) // math.prod(inputs)


def require_fit(
    wanted: Sequence[Part], shapes: Mapping[str, tuple[int, ...]], config: ModelConfig
) -> dict[str, str]:
    """Return the file's name for each of the table's; files of a bare model lack the first part of them.

    Raises:
        CheckpointError: a tensor is missing, left over, or of another shape.
    """
    prefix = wanted[0].name.split(".")[0] + "."
    bare = not any(name.startswith(prefix) for name in shapes)
    names = {(prefix if bare and name != "lm_head.weight" else "") + name: name for name in shapes}
    known = {part.name: part.shape for part in wanted}
    extra = set(names) - set(known) - ({"lm_head.weight"} if config.tied_head else set())
    faults = [f"{name} is missing" for name in known if name not in names]
    faults += [f"{names[name]} is not part of this family" for name in sorted(extra)]
    faults += [
        f"{names[name]} must have shape {shape}, got {shapes[names[name]]}"
        for name, shape in known.items()
        if name in names and tuple(shapes[names[name]]) != shape
    ]
    if faults:
        raise CheckpointError("the tensors do not fit config.json: " + "; ".join(faults[:3]))
    return names
