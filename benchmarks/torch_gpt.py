"""A GPT in torch as its users run it: fused attention, one product for queries, keys and values, a tied head.

The shapes and the recipe are those of nanoGPT's CPU configuration and of GPT-2; what our train step is timed
beside. Legend: B batch, T tokens, D width.
"""

from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional


class Block(nn.Module):
    """Pre-norm attention and MLP."""

    def __init__(self, width: int, heads: int, bias: bool):
        super().__init__()
        self.heads = heads
        self.norm_1 = nn.LayerNorm(width, bias=bias)
        self.qkv = nn.Linear(width, 3 * width, bias=bias)
        self.out = nn.Linear(width, width, bias=bias)
        self.norm_2 = nn.LayerNorm(width, bias=bias)
        self.up = nn.Linear(width, 4 * width, bias=bias)
        self.down = nn.Linear(4 * width, width, bias=bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, length, width = x.shape
        heads = self.qkv(self.norm_1(x)).view(batch, length, 3, self.heads, width // self.heads)
        query, key, value = heads.permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        x = x + self.out(mixed.transpose(1, 2).reshape(batch, length, width))
        return x + self.down(functional.gelu(self.up(self.norm_2(x)), approximate="tanh"))


class TorchGPT(nn.Module):
    """Token ids [B, T] to logits [B, T, V]; without dropout."""

    def __init__(self, vocab: int, context: int, width: int, layers: int, heads: int, bias: bool):
        super().__init__()
        self.tokens = nn.Embedding(vocab, width)
        self.positions = nn.Embedding(context, width)
        self.blocks = nn.ModuleList(Block(width, heads, bias) for _ in range(layers))
        self.norm = nn.LayerNorm(width, bias=bias)
        for parameter in self.parameters():
            if parameter.dim() == 2:
                nn.init.normal_(parameter, std=0.02)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        x = self.tokens(tokens) + self.positions.weight[: tokens.shape[1]]
        for block in self.blocks:
            x = block(x)
        return self.norm(x) @ self.tokens.weight.T

    def loss(self, tokens: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Mean cross-entropy in nats."""
        return functional.cross_entropy(self(tokens).flatten(0, 1), targets.flatten())


def adamw(
    model: nn.Module, *, rate: float, beta2: float, decay: float, fused: bool = False
) -> torch.optim.AdamW:
    """AdamW that decays matrices only."""
    matrices = [p for p in model.parameters() if p.dim() >= 2]
    others = [p for p in model.parameters() if p.dim() < 2]
    groups = [{"params": matrices, "weight_decay": decay}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=rate, betas=(0.9, beta2), fused=fused)


def as_ours(named: dict[str, torch.Tensor], heads: int) -> dict[str, Any]:
    """Weights (or gradients) by torch's names as the tree of arrays that our decoder takes."""
    weights = {name: tensor.detach().numpy() for name, tensor in named.items()}
    width = weights["norm.weight"].shape[0]
    layers = 1 + max(int(name.split(".")[1]) for name in weights if name.startswith("blocks."))

    def stack(name: str) -> np.ndarray:
        return np.stack([weights[f"blocks.{layer}.{name}"] for layer in range(layers)])

    def norm(name: str) -> dict[str, np.ndarray]:
        return {"scale": stack(f"{name}.weight"), "bias": stack(f"{name}.bias")}

    def dense(name: str) -> dict[str, np.ndarray]:
        return {"kernel": stack(f"{name}.weight").swapaxes(1, 2), "bias": stack(f"{name}.bias")}

    joined, per_head = dense("qkv"), (heads, width // heads)
    blocks = {"norm_1": norm("norm_1"), "norm_2": norm("norm_2")}
    blocks |= {"mlp_up": dense("up"), "mlp_down": dense("down"), "attention_output": dense("out")}
    output = blocks["attention_output"]
    output["kernel"] = output["kernel"].reshape(layers, *per_head, width)
    for number, name in enumerate(("query", "key", "value")):
        part = slice(number * width, (number + 1) * width)
        blocks[name] = {
            "kernel": joined["kernel"][:, :, part].reshape(layers, width, *per_head),
            "bias": joined["bias"][:, part].reshape(layers, *per_head),
        }
    return {
        "token_embedding": {"embedding": weights["tokens.weight"]},
        "position_embedding": {"embedding": weights["positions.weight"]},
        "blocks": blocks,
        "final_norm": {"scale": weights["norm.weight"], "bias": weights["norm.bias"]},
    }
