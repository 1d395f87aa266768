"""The torch tutorial's state dict and our parameters, in both directions, name by name and bit by bit.

Legend: D d_model, N heads, H head_dim, F MLP width, V vocabulary, T context length, L layers. torch's linear
    weights are [out, in], ours [in, out].
"""

from collections.abc import Mapping

import numpy as np

from llm_jax.base.errors import CheckpointError
from llm_jax.base.tree import Tree, flatten, unflatten
from llm_jax.config.model import NOT_COMPUTED, ModelConfig

StateDict = dict[str, np.ndarray]
# What may differ between models of the tutorial's architecture.
_FREE = NOT_COMPUTED | {
    *("vocab_size", "spare_embedding_rows", "context_length", "d_model", "num_layers", "num_heads", "d_ff"),
}
_HEAD = "language_model_out_linear_layer"
_TABLE = "token_embedding_lookup_table.weight"
# Ours without "blocks/" -> theirs without "transformer_blocks.{i}."; weights are transposed, biases and norms
# are not.
_LAYER_NAMES = {
    "attention_output/kernel": "multi_head_attention_layer.projection_layer.weight",
    "attention_output/bias": "multi_head_attention_layer.projection_layer.bias",
    "mlp_up/kernel": "feed_forward_layer.ffn.0.weight",
    "mlp_up/bias": "feed_forward_layer.ffn.0.bias",
    "mlp_down/kernel": "feed_forward_layer.ffn.2.weight",
    "mlp_down/bias": "feed_forward_layer.ffn.2.bias",
    "norm_1/scale": "layer_norm_1.weight",
    "norm_1/bias": "layer_norm_1.bias",
    "norm_2/scale": "layer_norm_2.weight",
    "norm_2/bias": "layer_norm_2.bias",
}


def name_of_relu_bias(layer: int) -> str:
    """Return the bias [F] that is the last term of what goes into a layer's ReLU."""
    return f"transformer_blocks.{layer}.{_LAYER_NAMES['mlp_up/bias']}"


def is_mask(name: str) -> bool:
    """Return whether a tensor holds no parameter, but which positions see which."""
    return name.endswith(".tril")


def infer_config(state_dict: Mapping[str, np.ndarray], context_length: int | None = None) -> ModelConfig:
    """Return the decoder's shape, read off the tensors.

    Args:
        state_dict: tensors by torch's names.
        context_length: T; without it, the size of the `tril` buffers, or where a file has none, of the
            tutorial's own.

    Raises:
        CheckpointError: it is not the tutorial's state dict.
    """
    try:
        rows, d_model = state_dict[_TABLE].shape
        vocab_size = state_dict[f"{_HEAD}.bias"].shape[0]
        attention = "transformer_blocks.0.multi_head_attention_layer.heads"
        num_heads = sum(
            name.startswith(f"{attention}.") and name.endswith(".query_layer.weight") for name in state_dict
        )
        num_layers = sum(name.endswith(".layer_norm_1.weight") for name in state_dict)
        masks = [tensor.shape[0] for name, tensor in state_dict.items() if is_mask(name)]
        length = context_length or (masks[0] if masks else ModelConfig().context_length)
        d_ff = state_dict["transformer_blocks.0.feed_forward_layer.ffn.0.bias"].shape[0]
    except (KeyError, ValueError, IndexError) as error:
        raise CheckpointError(
            f"this is not the torch tutorial's state dict: {error} is missing or misshapen"
        ) from None
    return ModelConfig(
        vocab_size=vocab_size,
        spare_embedding_rows=rows - vocab_size,
        context_length=length,
        d_model=d_model,
        num_layers=num_layers,
        num_heads=num_heads,
        d_ff=d_ff,
    )


def import_params(state_dict: Mapping[str, np.ndarray], config: ModelConfig) -> Tree:
    """Return our parameters; every tensor is used exactly once (`tril` buffers may be left out: they hold no
    parameter).

    Raises:
        CheckpointError: a tensor is missing, left over, or of another shape, or a mask is not causal.
    """
    wanted = {name: tensor.shape for name, tensor in export_state_dict(_zeros(config), config).items()}
    faults = [f"{name} is missing" for name in wanted if name not in state_dict and not is_mask(name)]
    faults += [f"{name} is not part of the tutorial" for name in state_dict if name not in wanted]
    faults += [
        f"{name} has shape {state_dict[name].shape}, must have {shape}"
        for name, shape in wanted.items()
        if name in state_dict and state_dict[name].shape != shape
    ]
    causal = np.tril(np.ones((config.context_length, config.context_length), np.bool_))
    faults += [
        f"{name} must be 1 on and below the diagonal, and 0 above"
        for name, tensor in state_dict.items()
        if is_mask(name) and tensor.shape == causal.shape and not np.array_equal(tensor, causal)
    ]
    if faults:
        raise CheckpointError("the state dict does not fit: " + "; ".join(faults[:3]))
    d, n, h = config.d_model, config.num_heads, config.head_dim
    leaves: dict[str, np.ndarray] = {"token_embedding/embedding": state_dict[_TABLE]}
    layers = [f"transformer_blocks.{layer}." for layer in range(config.num_layers)]
    for ours in ("query", "key", "value"):
        heads = [
            [f"{layer}multi_head_attention_layer.heads.{i}.{ours}_layer.weight" for i in range(n)]
            for layer in layers
        ]
        leaves[f"blocks/{ours}/kernel"] = np.stack(
            [np.stack([state_dict[name].T for name in names], axis=1) for names in heads]
        )
    for ours, theirs in _LAYER_NAMES.items():
        stacked = np.stack([state_dict[layer + theirs].T for layer in layers])
        if ours == "attention_output/kernel":
            stacked = stacked.reshape(-1, n, h, d)
        leaves[f"blocks/{ours}"] = stacked
    leaves["final_norm/scale"] = state_dict[f"transformer_blocks.{config.num_layers}.weight"]
    leaves["final_norm/bias"] = state_dict[f"transformer_blocks.{config.num_layers}.bias"]
    leaves["head/kernel"] = state_dict[f"{_HEAD}.weight"].T
    leaves["head/bias"] = state_dict[f"{_HEAD}.bias"]
    return unflatten({path: np.ascontiguousarray(leaf) for path, leaf in leaves.items()})


def export_state_dict(params: Tree, config: ModelConfig) -> StateDict:
    """Return the tutorial's state dict, `tril` buffers included; `import_params` gives the same bits back.

    Raises:
        CheckpointError: the model is not the tutorial's architecture.
    """
    usual = vars(ModelConfig())
    if odd := [name for name in usual if name not in _FREE and getattr(config, name) != usual[name]]:
        raise CheckpointError(f"the torch tutorial's format has no room for this model's {', '.join(odd)}")
    leaves = {path: np.asarray(leaf) for path, leaf in flatten(params)}
    state_dict: StateDict = {_TABLE: leaves["token_embedding/embedding"]}
    tril = np.tril(np.ones((config.context_length, config.context_length), np.float32))
    for layer in range(config.num_layers):
        prefix = f"transformer_blocks.{layer}."
        for head in range(config.num_heads):
            at = f"{prefix}multi_head_attention_layer.heads.{head}."
            state_dict[f"{at}tril"] = tril
            for ours in ("query", "key", "value"):
                state_dict[f"{at}{ours}_layer.weight"] = leaves[f"blocks/{ours}/kernel"][layer, :, head].T
        for ours, theirs in _LAYER_NAMES.items():
            leaf = leaves[f"blocks/{ours}"][layer]
            if ours == "attention_output/kernel":
                leaf = leaf.reshape(config.d_model, config.d_model)
            state_dict[prefix + theirs] = leaf.T
    state_dict[f"transformer_blocks.{config.num_layers}.weight"] = leaves["final_norm/scale"]
    state_dict[f"transformer_blocks.{config.num_layers}.bias"] = leaves["final_norm/bias"]
    state_dict[f"{_HEAD}.weight"] = leaves["head/kernel"].T
    state_dict[f"{_HEAD}.bias"] = leaves["head/bias"]
    return {name: np.ascontiguousarray(tensor) for name, tensor in state_dict.items()}


def _zeros(config: ModelConfig) -> Tree:
    """Parameters that take no memory: every leaf is one zero, broadcast."""
    d, n, h, f = config.d_model, config.num_heads, config.head_dim, config.mlp_width
    layer = {
        "query/kernel": (d, n, h),
        "key/kernel": (d, n, h),
        "value/kernel": (d, n, h),
        "attention_output/kernel": (n, h, d),
        "attention_output/bias": (d,),
        "mlp_up/kernel": (d, f),
        "mlp_up/bias": (f,),
        "mlp_down/kernel": (f, d),
        "mlp_down/bias": (d,),
        **{f"norm_{i}/{part}": (d,) for i in (1, 2) for part in ("scale", "bias")},
    }
    shapes = {f"blocks/{name}": (config.num_layers, *shape) for name, shape in layer.items()} | {
        "token_embedding/embedding": (config.vocab_size + config.spare_embedding_rows, d),
        "final_norm/scale": (d,),
        "final_norm/bias": (d,),
        "head/kernel": (d, config.vocab_size),
        "head/bias": (config.vocab_size,),
    }
    return unflatten({path: np.broadcast_to(np.float32(0), shape) for path, shape in shapes.items()})
