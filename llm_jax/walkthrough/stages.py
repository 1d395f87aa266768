"""The stages of the torch tutorial in its order, each with its formula, our lines of code and its arrays.

Nothing is computed here: arrays are the lesson's, at most seen with other axes. Legend: B batch, T tokens, D
d_model, N heads, H head_dim, F MLP width, V vocabulary, R rows of the token embedding.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from llm_jax.data import batches
from llm_jax.model import attention, decoder, layers, positions
from llm_jax.model.activations import SeenInBlock
from llm_jax.tokenization import byte_pair
from llm_jax.walkthrough.lesson import Lesson
from llm_jax.walkthrough.source import Code, statement


class View(NamedTuple):
    """An array with names for its axes and, where its rows or columns stand for tokens, their texts."""

    symbol: str
    axes: tuple[str, ...]  # keys of the words for axes
    array: np.ndarray
    rows: list[str] | None = None
    columns: list[str] | None = None

    def corner(self, count: int) -> tuple[np.ndarray, list[str] | None, list[str] | None]:
        """Return the first rows and columns of the first matrix in it, and their texts."""
        array = np.atleast_2d(self.array)
        matrix = array.reshape(-1, *array.shape[-2:])[0]
        rows, columns = (labels and labels[:count] for labels in (self.rows, self.columns))
        return matrix[:count, :count], rows, columns


class Stage(NamedTuple):
    """One stage; its sentences are found by its name."""

    name: str
    formula: str  # LaTeX
    code: list[Code]
    views: list[View]


_BLOCK = layers.Block.__call__
_WIDE = ("batch", "time", "width")
_HEADS = ("batch", "head", "time", "head_width")
_ACTIVATIONS = {
    "relu": r"\mathrm{ReLU}",
    "gelu": r"\mathrm{GELU}",
    "gelu_exact": r"\mathrm{GELU}",
    "silu": r"\mathrm{SiLU}",
    "relu_squared": r"\mathrm{ReLU}^2",
}
_SQUARE = ("batch", "head", "query", "key")


def stages(lesson: Lesson, cross_entropy: Callable[..., Any]) -> list[Stage]:
    """Return all stages, from the whole text to the loss, whose function is training's and is passed in."""
    loss = statement(cross_entropy, "return")
    return [*_text_to_input(lesson), *_heads(lesson), *_attention(lesson), *_rest(lesson, loss)]


def _row_labels(lesson: Lesson) -> list[str]:
    return [lesson.labels[int(token)] for token in lesson.batch.tokens[0]]


def _text_to_input(lesson: Lesson) -> list[Stage]:
    x_BT, y_BT, seen = lesson.batch.tokens, lesson.batch.targets, lesson.seen
    inputs, targets = _row_labels(lesson), [lesson.labels[int(token)] for token in y_BT[0]]
    table_RD = lesson.params["token_embedding"]["embedding"]
    first_tokens = [lesson.labels[int(token)] for token in lesson.text_tokens[:8]]
    shown_rows = [lesson.labels[token] for token in range(min(8, len(table_RD)))]
    return [
        Stage(
            "whole_text",
            r"t_1, t_2, \ldots, t_N",
            [statement(byte_pair.RankTokenizer.encode, "return")],
            [View("t", ("text",), lesson.text_tokens, columns=first_tokens)],
        ),
        Stage(
            "batch",
            r"x_{b,i} = t_{s_b + i}, \quad y_{b,i} = t_{s_b + i + 1}",
            [statement(batches.batch_at, "text_BL"), statement(batches.text_batch, "return")],
            [
                View("x", ("batch", "time"), x_BT, columns=inputs),
                View("y", ("batch", "time"), y_BT, columns=targets),
            ],
        ),
        Stage(
            "table",
            r"E \in \mathbb{R}^{R \times D}",
            [statement(decoder._init_table, "return")],
            [View("E", ("row", "width"), table_RD, rows=shown_rows)],
        ),
        Stage(
            "embedded",
            r"e_{b,i} = E_{x_{b,i}}",
            [statement(decoder._embed, "token_BTD")],
            [
                View("x", _WIDE, seen.token_embedding, rows=inputs),
                View("y", _WIDE, lesson.embedded_targets, rows=targets),
            ],
        ),
        *(_rotation(lesson) if lesson.config.positions == "rotary" else _signal(lesson)),
    ]


def _signal(lesson: Lesson) -> list[Stage]:
    """Positions that are added to the tokens."""
    seen, inputs = lesson.seen, _row_labels(lesson)
    positions_TD = seen.position_embedding[0]
    learned = lesson.config.positions == "learned"
    waves = [statement(positions.sinusoidal_table, name) for name in ("frequency", "angle", "return")]
    return [
        Stage(
            "positions",
            r"P \in \mathbb{R}^{T \times D}"
            if learned
            else r"P_{p,2k} = \sin(p\,\omega_k), \quad P_{p,2k+1} = \cos(p\,\omega_k), \quad "
            r"\omega_k = e^{-2k \ln(10000) / D}",
            [statement(decoder._embed, "positions_TD")] if learned else waves,
            [
                View("P", ("time", "width"), positions_TD, rows=[str(p) for p in range(len(positions_TD))]),
                View("P", _WIDE, seen.position_embedding, rows=inputs),
            ],
        ),
        Stage(
            "input",
            r"h = e + P",
            [statement(decoder.hidden_states, "x_BTD")],
            [View("h", _WIDE, seen.blocks.block_input[0], rows=inputs)],
        ),
    ]


def _rotation(lesson: Lesson) -> list[Stage]:
    """Positions that turn queries and keys in every block."""
    turn = lesson.seen.attention_pattern.turn
    angles = [statement(positions.rotation, name) for name in ("angle_BTP", "return")]
    code = [statement(positions.frequencies, "frequency_P"), *angles]
    return [
        Stage(
            "rotation",
            r"(x_i, x_{i + H/2}) \mapsto (x_i \cos p\,\omega_i - x_{i + H/2} \sin p\,\omega_i, \; "
            r"x_{i + H/2} \cos p\,\omega_i + x_i \sin p\,\omega_i), \quad \omega_i = e^{-2i \ln(10000) / H}",
            [*code, statement(positions.rotate, "turned")],
            [
                View(symbol, ("batch", "time", "head_width"), array, rows=_row_labels(lesson))
                for symbol, array in (("cos", turn.cosine), ("sin", turn.sine))
            ],
        )
    ]


def _first_block(lesson: Lesson) -> SeenInBlock:
    return SeenInBlock(*(None if array is None else array[0] for array in lesson.seen.blocks))


def _joined(x_BTNH: np.ndarray) -> np.ndarray:
    return x_BTNH.reshape(*x_BTNH.shape[:2], -1)


def _heads_first(x_BTNH: np.ndarray) -> np.ndarray:
    return x_BTNH.swapaxes(1, 2)


def _heads(lesson: Lesson) -> list[Stage]:
    block, inputs = _first_block(lesson), _row_labels(lesson)
    projected = [("Q", block.queries), ("K", block.keys), ("V", block.values)]
    symbols = r"Q, K, V \in \mathbb{R}"
    rotary, normed = lesson.config.positions == "rotary", lesson.config.qk_norm != "none"
    turned = "R" * rotary + r"\,\mathrm{RMSNorm}" * normed
    occurrences = [0, *[1] * normed, *[2] * rotary]  # of lines in the block that make the queries
    return [
        Stage(
            "attention_norm",
            r"\hat h = \frac{h - \mu}{\sqrt{\sigma^2 + \epsilon}} \odot g + b",
            [statement(_BLOCK, "attention_input_BTD")],
            [View("ĥ", _WIDE, block.attention_input, rows=inputs)],
        ),
        Stage(
            "projections",
            rf"Q = {turned} \hat h W^Q, \quad K = {turned} \hat h W^K, \quad V = \hat h W^V",
            [statement(_BLOCK, "q_BTNH", occurrence) for occurrence in occurrences],
            [View(symbol, _WIDE, _joined(x), rows=inputs) for symbol, x in projected],
        ),
        Stage(
            "split",
            symbols + r"^{B \times T \times N \times H}",
            [statement(layers.Block._heads, "return")],
            [View(symbol, ("batch", "time", "head", "head_width"), x) for symbol, x in projected],
        ),
        Stage(
            "heads_first",
            symbols + r"^{B \times N \times T \times H}",
            [statement(attention.attention_weights, "scores_BKGTS")],
            [View(symbol, _HEADS, _heads_first(x), rows=inputs) for symbol, x in projected],
        ),
    ]


def _attention(lesson: Lesson) -> list[Stage]:
    block, inputs = _first_block(lesson), _row_labels(lesson)
    mask_TT = np.where(lesson.seen.attention_pattern.mask[0], 0.0, -np.inf)
    masked_BNTT = np.where(lesson.seen.attention_pattern.mask[:, None], block.scores, -np.inf)
    return [
        Stage(
            "scores",
            r"S = \frac{Q K^{\top}}{\sqrt{H}}",
            [
                statement(attention.attention_weights, "scores_BKGTS"),
                statement(attention.attention_weights, "scores_BNTS", 1),
            ],
            [View("S", _SQUARE, block.scores, rows=inputs, columns=inputs)],
        ),
        Stage(
            "mask",
            r"M_{ij} = \begin{cases} 0 & j \le i \\ -\infty & j > i \end{cases}",
            [
                statement(attention.attention_pattern, "mask_BTS"),
                statement(attention.attention_weights, "masked_BNTS"),
            ],
            [
                View("M", ("query", "key"), mask_TT, rows=inputs, columns=inputs),
                View("S + M", _SQUARE, masked_BNTT, rows=inputs, columns=inputs),
            ],
        ),
        Stage(
            "softmax",
            r"A_{ij} = \frac{e^{S_{ij} + M_{ij}}}{\sum_k e^{S_{ik} + M_{ik}}}",
            [statement(attention.attention_weights, "weights_BNTS")],
            [View("A", _SQUARE, block.weights, rows=inputs, columns=inputs)],
        ),
        Stage(
            "mixed",
            r"Z = A V",
            [statement(attention.mix, "mixed_BTKGH")],
            [View("Z", _HEADS, _heads_first(block.mixed), rows=inputs)],
        ),
        Stage(
            "joined",
            r"Z = [Z_1; Z_2; \ldots; Z_N]",
            [statement(layers.Projection.__call__, "joined")],
            [View("Z", _WIDE, _joined(block.mixed), rows=inputs)],
        ),
        Stage(
            "projection",
            r"O = Z W^O + b^O",
            [statement(_BLOCK, "attention_output_BTD")],
            [View("O", _WIDE, block.attention_output, rows=inputs)],
        ),
        Stage(
            "residual",
            r"h' = h + O",
            [statement(_BLOCK, "after_attention_BTD")],
            [View("h'", _WIDE, block.after_attention, rows=inputs)],
        ),
    ]


def _rest(lesson: Lesson, loss: Code) -> list[Stage]:
    seen, inputs = lesson.seen, _row_labels(lesson)
    block = _first_block(lesson)
    ids = [lesson.labels[token] for token in range(8)]
    inside = [statement(layers.Block._mlp, name) for name in ("hidden_BTF", "active_BTF", "down_BTD")]
    around = [statement(_BLOCK, name) for name in ("mlp_input_BTD", "mlp_output_BTD", "output_BTD")]
    activation = _ACTIVATIONS[lesson.config.activation]
    tied = lesson.config.tied_head
    return [
        Stage(
            "mlp",
            rf"h'' = h' + {activation}(\hat{{h'}} W_1 + b_1) W_2 + b_2",
            [around[0], *inside, *around[1:]],
            [
                View("u", ("batch", "time", "hidden"), block.mlp_active, rows=inputs),
                View("h''", _WIDE, block.block_output, rows=inputs),
            ],
        ),
        Stage(
            "final_norm",
            r"z = \frac{h_L - \mu}{\sqrt{\sigma^2 + \epsilon}} \odot g + b",
            [statement(decoder._final_norm, "return")],
            [View("z", _WIDE, seen.hidden, rows=inputs)],
        ),
        Stage(
            "logits",
            r"\ell = z E^{\top}" if tied else r"\ell = z W + b",
            [statement(layers.head_scores, "logits")],
            [View("ℓ", ("batch", "time", "vocabulary"), lesson.logits, rows=inputs, columns=ids)],
        ),
        Stage(
            "loss",
            r"\mathcal{L} = -\frac{1}{BT} \sum_{b,i} \ln "
            r"\frac{e^{\ell_{b,i,y_{b,i}}}}{\sum_v e^{\ell_{b,i,v}}}",
            [loss],
            [View("L", (), np.asarray(lesson.nats.mean()))],
        ),
    ]
