"""The decoder's shape and switches, as frozen dataclasses.

The string below a field is its documentation, which `--help` shows; rules are checked on construction.
"""

import dataclasses
import math
from typing import Literal

from llm_jax.config.rules import Whole, at_least, fractions, require

# Settings on which logits do not depend, but for rounding: how a model starts, trains and runs.
_HOW_IT_STARTS = ("initializer", "base_width", "param_dtype")
_HOW_IT_RUNS = ("dropout", "embedding_dropout", "router_balance", "dtype", "layers", "remat", "attention")
NOT_COMPUTED = frozenset((*_HOW_IT_STARTS, *_HOW_IT_RUNS))


@dataclasses.dataclass(frozen=True, kw_only=True)
class RotaryConfig:
    """How rotary positions turn queries and keys, and how they were scaled to a longer context."""

    theta: float = 10000.0
    """Base of the frequencies: 2 pi times it is close to the longest wavelength, in tokens."""
    local_theta: float = 0.0
    """Base in layers with a sliding window, never scaled (Gemma 3); 0 treats all layers alike."""
    fraction: float = 1.0
    """Share of each head's entries, from the first on, that are turned."""
    scaling: Literal["none", "linear", "llama3", "yarn"] = "none"
    """Scaling: of every frequency, of low ones (Llama 3), or by turns in the original context (YaRN)."""
    factor: float = 1.0
    """How many times as long the context became."""
    original_context: Whole = 0
    """Context before the scaling, in tokens (llama3 and yarn)."""
    slow_turns: float = 1.0
    """Frequencies with fewer turns in the original context are scaled in full (llama3 and yarn)."""
    fast_turns: float = 4.0
    """Frequencies with more turns in the original context stay (llama3; yarn's usual value is 32)."""
    magnitude: float = 1.0
    """Multiplies cosines and sines (yarn's usual value is 0.1 ln(factor) + 1)."""
    round_pairs: bool = True
    """Whether yarn's bounds are rounded outwards to whole pairs of entries."""

    def __post_init__(self) -> None:
        scaled = self.scaling in ("llama3", "yarn")
        require(
            at_least(self, 0, "local_theta", "original_context")
            | {
                f"theta ({self.theta}) must exceed 1": 1 < self.theta < math.inf,
                f"local_theta ({self.local_theta}) must exceed 1, or be 0": not 0 < self.local_theta <= 1,
                f"fraction ({self.fraction}) must be above 0 and at most 1": 0 < self.fraction <= 1,
                f"factor ({self.factor}) must be at least 1": 1 <= self.factor < math.inf,
                f"magnitude ({self.magnitude}) must be positive": 0 < self.magnitude < math.inf,
                f"{self.scaling} scaling needs original_context": not scaled or self.original_context > 0,
                f"fast_turns ({self.fast_turns}) must exceed slow_turns ({self.slow_turns}), both positive": 0
                < self.slow_turns
                < self.fast_turns
                < math.inf,
            }
        )

    def in_windows(self) -> "RotaryConfig":
        """Return what holds in layers with a sliding window."""
        return RotaryConfig(theta=self.local_theta, fraction=self.fraction) if self.local_theta else self


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The decoder's shape and switches."""

    vocab_size: Whole = 0
    """Number of token ids; 0 takes the tokenizer's vocabulary, and its shared_ids."""
    shared_ids: Whole = 0
    """Ids at the end of the vocabulary that share one row of the embedding and of the head."""
    num_labels: Whole = 0
    """Outputs of a model that tells labels apart, in place of the next token; 0 takes the data's."""
    factor_values: Whole = 0
    """Values of words' fields (task.factors) that have an embedding of their own; 0 takes the data's."""
    factor_slots: Whole = 0
    """How many of them each token has; 0 takes the data's."""
    spare_embedding_rows: Whole = 0
    """Extra rows of the token embedding beyond the head's (the torch tutorial has 1)."""
    context_length: Whole = 16
    """Longest sequence the decoder sees, in tokens."""
    d_model: Whole = 64
    """Width of the residual stream."""
    num_layers: Whole = 8
    """Number of decoder blocks."""
    num_heads: Whole = 4
    """Attention heads of the queries."""
    num_kv_heads: Whole = 0
    """Heads of the keys and values, each shared by as many query heads; 0 means num_heads."""
    d_head: Whole = 0
    """Width of a head; 0 means d_model / num_heads."""
    d_ff: Whole = 0
    """Width inside the MLP; 0 means 4 x d_model."""
    positions: Literal["sinusoidal", "learned", "rotary"] = "sinusoidal"
    """A signal that is added to the token embedding, or (rotary) a turn of each block's queries and keys."""
    rotary: RotaryConfig = RotaryConfig()
    """Where positions are rotary."""
    norm: Literal["layer", "rms", "rms_plus_one"] = "layer"
    """Layer norm, or division by the root mean square; then times a learnt scale, or (Gemma) 1 + it."""
    norm_place: Literal["before", "after", "both"] = "before"
    """Norms of what attention and MLP read, of what they add to the stream (OLMo 2), or of both (Gemma)."""
    activation: Literal["relu", "gelu", "gelu_exact", "silu", "relu_squared"] = "relu"
    """Non-linearity of the MLP (gelu is GPT-2's tanh approximation)."""
    gated_mlp: bool = False
    """Whether the active projection multiplies a second one (SwiGLU with silu, GeGLU with gelu)."""
    num_experts: Whole = 0
    """Experts, MLPs among which a router chooses for each token; 0: one MLP that all take."""
    experts_per_token: Whole = 2
    """Experts that each token takes."""
    router_normalizes: bool = True
    """Whether the weights of a token's experts are divided by their sum."""
    router_balance: float = 0.01
    """Pull on the router towards using all experts alike (Fedus et al. 2021); not in the loss shown."""
    qk_norm: Literal["none", "head", "all_heads"] = "none"
    """Queries and keys divided by their root mean square, of each head or of all, times a learnt scale."""
    sliding_window: Whole = 0
    """Tokens that a layer sees, itself included; 0 means all before it."""
    global_every: Whole = 0
    """Every so many layers one sees all tokens in spite of sliding_window; 0 means none does."""
    attention_scale: float = 0.0
    """Multiplies the products of queries and keys; 0 means 1 / sqrt of a head's width."""
    attention_cap: float = 0.0
    """Bound c on attention's scores, as c tanh(score / c); 0 means none."""
    logit_cap: float = 0.0
    """Bound on the logits, likewise."""
    embedding_scale: float = 1.0
    """Multiplies the token embeddings (Gemma: sqrt of d_model)."""
    qkv_bias: bool = False
    """Whether the query, key and value projections have biases."""
    output_bias: bool = True
    """Whether the projection of attention's output has a bias."""
    mlp_bias: bool = True
    """Whether the projections of the MLP have biases."""
    tied_head: bool = False
    """Whether the output head is the token embedding, transposed."""
    head_bias: bool = True
    """Whether the output head has a bias."""
    norm_eps: float = 1e-5
    """Added to the variance in every layer norm."""
    dropout: float = 0.1
    """Rate on attention weights, on the attention output and on the MLP output."""
    embedding_dropout: float = 0.0
    """Rate on the sum of token embedding and position (GPT-2 has it, the tutorial does not)."""
    initializer: Literal["torch", "gpt2"] = "torch"
    """torch: nn.Linear's and nn.Embedding's defaults; gpt2: normal(0.02), smaller into the residual."""
    base_width: Whole = 0
    """d_model for which initializer and rates were chosen; muP carries them to this one. 0: no muP."""
    dtype: Literal["float32", "bfloat16", "float64"] = "float32"
    """Arithmetic of the matrix products; norms, softmax, logits and loss are float32 or wider."""
    param_dtype: Literal["float32", "bfloat16", "float64"] = "float32"
    """How a model's parameters are read and exported; training keeps them in float32 at least."""
    layers: Literal["scan", "unroll"] = "scan"
    """How the stacked layers run: one compiled body, or unrolled, each layer compiled by itself."""
    remat: bool = False
    """Recompute each block in the backward pass instead of keeping its activations."""
    attention: Literal["plain", "fused"] = "plain"
    """fused: by cuDNN on a GPU or splash attention on a TPU, where no cache is read; elsewhere as plain."""

    def __post_init__(self) -> None:
        require(
            at_least(
                self, 0, "vocab_size", "shared_ids", "spare_embedding_rows", "d_ff", "d_head", "num_labels"
            )
            | at_least(self, 0, "factor_values", "factor_slots")
            | at_least(self, 0, "num_kv_heads", "sliding_window", "global_every", "base_width")
            | at_least(self, 0, "num_experts", "router_balance")
            | at_least(self, 0, "attention_scale", "attention_cap", "logit_cap")
            | at_least(self, 1, "context_length", "d_model", "num_layers", "num_heads")
            | fractions(self, "dropout", "embedding_dropout")
            | {f"norm_eps ({self.norm_eps}) must be positive": 0 < self.norm_eps < math.inf}
        )
        width, heads, ids, shared = self.d_model, self.num_heads, self.vocab_size, self.shared_ids
        spare, scale, windowed = self.spare_embedding_rows, self.embedding_scale, self.sliding_window > 0
        experts, taken = self.num_experts, self.experts_per_token
        fused, divides = self.attention == "fused", self.d_head > 0 or not width % heads
        require(
            {
                f"d_model ({width}) must be divisible by num_heads ({heads}), or set d_head": divides,
                f"num_heads ({heads}) must be divisible by num_kv_heads ({self.kv_heads})": not heads
                % self.kv_heads,
                f"d_model ({width}) must be even for sinusoidal positions": self.positions != "sinusoidal"
                or not width % 2,
                f"embedding_scale ({scale}) must be positive": 0 < scale < math.inf,
                f"shared_ids ({shared}) must be below vocab_size ({ids})": shared <= max(0, ids - 1),
                "a tied head has no bias: set head_bias = false": not (self.tied_head and self.head_bias),
                "a tied head needs spare_embedding_rows = 0": not (self.tied_head and spare),
                f"experts_per_token ({taken}) must be from 1 to num_experts ({experts})": not experts
                or 1 <= taken <= experts,
                "experts have no biases: set mlp_bias = false": not (experts and self.mlp_bias),
                "base_width needs tied_head = false, as a head's start and rate are not an embedding's; "
                "or set base_width = 0": not (self.base_width and self.tied_head),
                "base_width needs attention_scale: 1 / sqrt of a head's width where all widths share that, "
                "otherwise in proportion to 1 / it": not self.base_width or self.attention_scale > 0,
                'attention = "fused" has no dropout on its weights: set dropout = 0': not fused
                or self.dropout == 0,
                'attention = "fused" has no bound on its scores: set attention_cap = 0': not fused
                or self.attention_cap == 0,
                f'attention = "fused" needs dtype = "bfloat16", got "{self.dtype}"': not fused
                or self.dtype == "bfloat16",
                'attention = "fused" needs heads whose width is a multiple of 8 and at most 128, '
                f"got {self.head_dim}": not (fused and divides)
                or (self.head_dim % 8 == 0 and self.head_dim <= 128),
                "global_every needs sliding_window": windowed or not self.global_every,
                "rotary.local_theta needs sliding_window": windowed or not self.rotary.local_theta,
                f"rotary positions must turn an even number of entries, got {self.rotary_dim} of a head's "
                f"{self.head_dim}": self.positions != "rotary"
                or (self.rotary_dim > 0 and not self.rotary_dim % 2),
            }
        )

    @property
    def num_rows(self) -> int:
        """Rows of the output head: one for each id, and one for all that share."""
        return self.vocab_size - max(0, self.shared_ids - 1)

    @property
    def width_ratio(self) -> float:
        """How many times as wide as the width that start and rates were chosen at."""
        return self.d_model / self.base_width if self.base_width else 1.0

    @property
    def head_dim(self) -> int:
        return self.d_head or self.d_model // self.num_heads

    @property
    def kv_heads(self) -> int:
        return self.num_kv_heads or self.num_heads

    def is_global(self, layer: int) -> bool:
        """Return whether this layer, counted from 0, has no sliding window."""
        every = self.global_every
        return not self.sliding_window or (every > 0 and (layer + 1) % every == 0)

    @property
    def rotary_dim(self) -> int:
        """Entries of each head that rotary positions turn."""
        return int(self.head_dim * self.rotary.fraction)

    @property
    def mlp_width(self) -> int:
        return self.d_ff or 4 * self.d_model
