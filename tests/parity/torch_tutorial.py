"""Our own torch model of the tutorial, from its facts: shapes, places of dropout and state dict names. The
reference of the proof.
"""

import math

import torch
from torch import nn


class Head(nn.Module):
    def __init__(self, d_model: int, head_dim: int, context_length: int, dropout: float):
        super().__init__()
        self.key_layer = nn.Linear(d_model, head_dim, bias=False)
        self.query_layer = nn.Linear(d_model, head_dim, bias=False)
        self.value_layer = nn.Linear(d_model, head_dim, bias=False)
        self.register_buffer("tril", torch.tril(torch.ones(context_length, context_length)))
        self.dropout_layer = nn.Dropout(dropout)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        length = x.shape[1]
        query, key, value = self.query_layer(x), self.key_layer(x), self.value_layer(x)
        scores = query @ key.transpose(1, 2) / math.sqrt(key.shape[-1])
        scores = scores.masked_fill(self.tril[:length, :length] == 0, float("-inf"))
        return self.dropout_layer(scores.softmax(dim=-1)) @ value


class MultiHeadAttention(nn.Module):
    def __init__(self, d_model: int, num_heads: int, context_length: int, dropout: float):
        super().__init__()
        head_dim = d_model // num_heads
        self.heads = nn.ModuleList(Head(d_model, head_dim, context_length, dropout) for _ in range(num_heads))
        self.projection_layer = nn.Linear(d_model, d_model)
        self.dropout_layer = nn.Dropout(dropout)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.dropout_layer(self.projection_layer(torch.cat([head(x) for head in self.heads], dim=-1)))


class FeedForward(nn.Module):
    def __init__(self, d_model: int, dropout: float):
        super().__init__()
        self.ffn = nn.Sequential(
            nn.Linear(d_model, 4 * d_model), nn.ReLU(), nn.Linear(4 * d_model, d_model), nn.Dropout(dropout)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.ffn(x)


class TransformerBlock(nn.Module):
    def __init__(self, d_model: int, num_heads: int, context_length: int, dropout: float):
        super().__init__()
        self.multi_head_attention_layer = MultiHeadAttention(d_model, num_heads, context_length, dropout)
        self.feed_forward_layer = FeedForward(d_model, dropout)
        self.layer_norm_1 = nn.LayerNorm(d_model)
        self.layer_norm_2 = nn.LayerNorm(d_model)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.multi_head_attention_layer(self.layer_norm_1(x))
        return x + self.feed_forward_layer(self.layer_norm_2(x))


class TorchTutorial(nn.Module):
    """The tutorial's language model; `vocab_size` columns in the head, one row more in the embedding."""

    def __init__(
        self,
        vocab_size: int,
        d_model: int = 64,
        num_layers: int = 8,
        num_heads: int = 4,
        context_length: int = 16,
        dropout: float = 0.1,
    ):
        super().__init__()
        self.context_length, self.d_model = context_length, d_model
        self.token_embedding_lookup_table = nn.Embedding(vocab_size + 1, d_model)
        self.transformer_blocks = nn.Sequential(
            *(TransformerBlock(d_model, num_heads, context_length, dropout) for _ in range(num_layers)),
            nn.LayerNorm(d_model),
        )
        self.language_model_out_linear_layer = nn.Linear(d_model, vocab_size)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        x = self.token_embedding_lookup_table(tokens)
        x = x + self._positions(x.dtype)[: tokens.shape[1]]
        return self.language_model_out_linear_layer(self.transformer_blocks(x))

    def _positions(self, dtype: torch.dtype) -> torch.Tensor:
        position = torch.arange(self.context_length, dtype=dtype).unsqueeze(1)
        frequency = torch.exp(
            torch.arange(0, self.d_model, 2, dtype=dtype) * (-math.log(10000.0) / self.d_model)
        )
        table = torch.zeros(self.context_length, self.d_model, dtype=dtype)
        table[:, 0::2] = torch.sin(position * frequency)
        table[:, 1::2] = torch.cos(position * frequency)
        return table

    def loss(self, tokens: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Mean cross-entropy in nats."""
        return nn.functional.cross_entropy(self(tokens).flatten(0, 1), targets.flatten())

    @torch.no_grad()
    def generate(self, tokens: torch.Tensor, count: int, greedy: bool = False) -> torch.Tensor:
        """Appends `count` tokens [B, T] -> [B, T + count]; each sees the last `context_length` tokens."""
        for _ in range(count):
            logits = self(tokens[:, -self.context_length :])[:, -1]
            if greedy:
                new = logits.argmax(dim=-1, keepdim=True)
            else:
                new = torch.multinomial(logits.softmax(dim=-1), 1)
            tokens = torch.cat([tokens, new], dim=1)
        return tokens
