"""Low-rank adapters in a parameter tree (LoRA, Hu et al. 2021; DoRA, Liu et al. 2024): leaves beside the
kernel that they adapt, whose product they add to what the kernel gives.

They begin as peft's do: A uniform, B zero, so that the model is the same to the bit.
Legend: L layers, I entries in, O entries out, R rank.
"""

import math
from fnmatch import fnmatchcase

import jax
import jax.numpy as jnp

from llm_jax.base.errors import UserError
from llm_jax.base.tree import Tree
from llm_jax.config.lora import LoraConfig

IN, OUT, SCALE, MAGNITUDE = "lora_a", "lora_b", "lora_scale", "lora_magnitude"
LEAVES = frozenset((IN, OUT, SCALE, MAGNITUDE))
_TWO_AXES_IN = {"attention_output"}  # heads and their width; of every other kernel one axis is read


def with_adapters(key: jax.Array, params: Tree, lora: LoraConfig) -> Tree:
    """Return parameters with fresh adapters beside the blocks' kernels that are chosen.

    Args:
        key: of which A is drawn.
        params: of a decoder without experts.
        lora: rank above 0.

    Raises:
        UserError: a target is the name of no kernel, or the model has experts.
    """
    patterns = [name.strip() for name in lora.targets.split(",")]
    blocks = params["blocks"]
    if "router" in blocks:
        raise UserError("optim.lora needs a model without experts: set optim.lora.rank = 0")
    names = [name for name, layer in blocks.items() if "kernel" in layer]
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise UserError(f"optim.lora.targets ({pattern}) must be among {', '.join(names)}")
    chosen = [name for name in names if any(fnmatchcase(name, pattern) for pattern in patterns)]
    return params | {
        "blocks": {
            name: layer | _fresh(jax.random.fold_in(key, names.index(name)), layer["kernel"], name, lora)
            if name in chosen
            else layer
            for name, layer in blocks.items()
        }
    }


def _fresh(key: jax.Array, kernel: jax.Array, name: str, lora: LoraConfig) -> Tree:
    kernel_LIO = _as_matrices(kernel, name)
    layers, inputs, outputs = kernel_LIO.shape
    bound, dtype = 1 / math.sqrt(inputs), kernel.dtype
    found = {
        IN: jax.random.uniform(key, (layers, inputs, lora.rank), dtype, -bound, bound),
        OUT: jnp.zeros((layers, lora.rank, outputs), dtype),
        SCALE: jnp.full((layers,), lora.alpha / lora.rank, dtype),
    }
    if lora.kind == "dora":
        found[MAGNITUDE] = jnp.linalg.norm(kernel_LIO, axis=1)
    return found


def adapted(joined: jax.Array, kernel_IO: jax.Array, plain: jax.Array, layer: Tree) -> jax.Array:
    """Return what a kernel and its adapter give, [N, O].

    Args:
        joined: what they read, [N, I].
        kernel_IO: the kernel.
        plain: what it gives alone, [N, O].
        layer: the adapter's leaves.
    """
    a_IR, b_RO, scale = (layer[name].astype(joined.dtype) for name in (IN, OUT, SCALE))
    y = plain + (joined @ a_IR @ b_RO) * scale
    if MAGNITUDE not in layer:
        return y
    # The length of the direction counts as given, as the paper has it: its gradient is left out.
    direction_IO = jax.lax.stop_gradient(kernel_IO + scale * (a_IR @ b_RO))
    return y * (layer[MAGNITUDE].astype(joined.dtype) / jnp.linalg.norm(direction_IO, axis=0))[None]


def merged(params: Tree) -> Tree:
    """Return the parameters of the same function without adapters, which become part of the kernels."""
    if not any(LEAVES & set(layer) for layer in params["blocks"].values()):
        return params
    return params | {"blocks": {name: _merged(name, layer) for name, layer in params["blocks"].items()}}


def _merged(name: str, layer: Tree) -> Tree:
    if IN not in layer:
        return layer
    kernel, rest = layer["kernel"], {key: leaf for key, leaf in layer.items() if key not in LEAVES}
    product = jnp.matmul(layer[IN], layer[OUT], precision="highest")
    whole_LIO = _as_matrices(kernel, name) + layer[SCALE][:, None, None] * product
    if MAGNITUDE in layer:
        whole_LIO *= (layer[MAGNITUDE] / jnp.linalg.norm(whole_LIO, axis=1))[:, None, :]
    return rest | {"kernel": whole_LIO.reshape(kernel.shape).astype(kernel.dtype)}


def _as_matrices(kernel: jax.Array, name: str) -> jax.Array:
    """A kernel of all layers, [L, I, O]."""
    axes = 2 if name in _TWO_AXES_IN else 1
    return kernel.reshape(len(kernel), math.prod(kernel.shape[1 : 1 + axes]), -1)
