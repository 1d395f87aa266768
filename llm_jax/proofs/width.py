"""How large things inside a decoder get by its width: the coordinate check of muP (Yang et al. 2022).

The same few steps are done at several widths, with start and rates as they are and carried from the smallest
width by `base_width`. Legend: B batch, T tokens, W widths.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from rich.table import Table

from llm_jax.base.batch import Batch
from llm_jax.base.devices import first_device
from llm_jax.base.errors import UserError
from llm_jax.base.terminal import console, say, say_result
from llm_jax.config.load import read_config
from llm_jax.config.model import ModelConfig
from llm_jax.config.run import Config, OptimConfig
from llm_jax.inference.inspect import look
from llm_jax.training.precision import rounded
from llm_jax.training.state import init_state
from llm_jax.training.step import train_step

PLACES = ("embedding", "attention", "MLP", "stream", "logits")
GROWTH = 0.15  # largest power of the width with which a size may grow or a change may shrink under muP
_IDS, _CONTEXT, _ROWS, _LAYERS = 64, 32, 8, 2


class Sizes(NamedTuple):
    """Mean absolute entries by place, each [W, steps + 1], before the first step and after each."""

    size: dict[str, np.ndarray]
    change: dict[str, np.ndarray]  # since before the first step, whose column is 0


class Checked(NamedTuple):
    """What `check` found."""

    holds: bool  # whether muP keeps what is inside at its size
    widths: list[int]
    sizes: dict[str, dict[str, np.ndarray]]  # "standard" and "muP": by place, [W, steps + 1]


def widened(model: ModelConfig, width: int) -> ModelConfig:
    """Return the decoder with another d_model: more heads of the same width, and an MLP in the same
    proportion.

    Raises:
        UserError: heads would not come out even.
    """
    times = width / model.d_model
    heads, kv_heads, d_ff = (times * n for n in (model.num_heads, model.num_kv_heads, model.d_ff))
    if not all(number.is_integer() for number in (heads, kv_heads, d_ff)):
        raise UserError(
            f"width ({width}) must be d_model ({model.d_model}) times something that leaves num_heads, "
            "num_kv_heads and d_ff whole numbers"
        )
    return dataclasses.replace(
        model,
        d_model=width,
        num_heads=int(heads),
        num_kv_heads=int(kv_heads),
        d_ff=int(d_ff),
        d_head=model.head_dim,
        attention_scale=model.attention_scale or 1 / math.sqrt(model.head_dim),
    )


def small(config: Config, steps: int) -> Config:
    """Return the configuration of the check: 2 layers, 64 ids, 8 rows of 32 tokens, no dropout, no
    warm-up.
    """
    return dataclasses.replace(
        config,
        model=dataclasses.replace(
            config.model,
            vocab_size=_IDS,
            shared_ids=0,
            context_length=_CONTEXT,
            num_layers=_LAYERS,
            dropout=0.0,
            embedding_dropout=0.0,
        ),
        optim=dataclasses.replace(config.optim, schedule="constant", warmup_steps=0),
        train=dataclasses.replace(
            config.train,
            steps=steps,
            batch_size=_ROWS,
            accumulation_steps=1,
            steps_per_dispatch=1,
            eval_stride=0,
        ),
    )


def a_batch() -> Batch:
    """Return rows that each repeat a phrase of 8 ids, frequent ones more often (Zipf), so that there is
    something to learn at every place.
    """
    generator = np.random.default_rng(0)
    share = 1 / np.arange(1, _IDS + 1)
    phrase_BP = generator.choice(_IDS, (_ROWS, 8), p=share / share.sum())
    window = np.tile(phrase_BP, _CONTEXT // 8 + 1)[:, : _CONTEXT + 1].astype(np.int32)
    return Batch(window[:, :-1], window[:, 1:], np.ones((_ROWS, _CONTEXT), np.float32))


def measure(
    config: Config, widths: Sequence[int], *, base_width: int, report: Callable[[str], None]
) -> Sizes:
    """Train at each width on one batch, again and again, and looks inside before and after each step.

    Args:
        config: as `small` makes it; its d_model is of no account.
        widths: W of them.
        base_width: for all of them; 0 leaves start and rates as they are.
        report: gets a line for each width.
    """
    first_device()
    batch, rows = a_batch(), []
    for width in widths:
        # At its base muP changes nothing, so that one program serves both.
        base = 0 if width == base_width else base_width
        model = dataclasses.replace(widened(config.model, width), base_width=base)
        wide = dataclasses.replace(config, model=model)
        state = init_state(wide)
        seen = [_look(rounded(state["params"], model), model, batch)]
        for _ in range(config.train.steps):
            state, _ = train_step(wide, state, batch, measured=False)
            seen.append(_look(rounded(state["params"], model), model, batch))
        rows.append(seen)
        report(f"{'muP' if base_width else 'standard'}, width {width}: {config.train.steps} steps")
    mean = lambda array: float(np.mean(np.abs(array)))  # noqa: E731
    size = {p: np.array([[mean(at[p]) for at in seen] for seen in rows]) for p in PLACES}
    change = {p: np.array([[mean(at[p] - seen[0][p]) for at in seen] for seen in rows]) for p in PLACES}
    return Sizes(size, change)


def power(widths: Sequence[int], size_W: np.ndarray) -> float:
    """Return the power of the width with which a size grows: the slope of its logarithm against the
    width's.
    """
    slope, _ = np.polyfit(np.log(widths), np.log(size_W), 1)
    return float(slope)


def powers(widths: Sequence[int], sizes: Sizes) -> dict[str, tuple[float, float]]:
    """Return (power of the size, power of the change) after the last step, by place."""
    return {
        place: (power(widths, sizes.size[place][:, -1]), power(widths, sizes.change[place][:, -1]))
        for place in PLACES
    }


def keeps_its_size(found: dict[str, tuple[float, float]]) -> bool:
    """Return whether nothing grows with the width, and every place changes as much at each.

    A size may shrink: what the head's random start adds to the logits falls with the width, as it should.
    """
    return all(size <= GROWTH and abs(change) <= GROWTH for size, change in found.values())


def check(source: Path | None, smallest: int, largest: int, steps: int) -> Checked:
    """Measure under both rules what widths make of sizes; print a table and a line of JSON.

    Raises:
        UserError: the widths or the configuration make no sense.
    """
    if steps < 1 or smallest < 1 or largest < 2 * smallest:
        raise UserError(
            f"steps ({steps}) and smallest ({smallest}) must be at least 1, largest ({largest}) twice that"
        )
    config = read_config([source]) if source else Config(optim=OptimConfig(learning_rate=1e-2))
    config = small(config, steps)
    widths = [smallest]
    while widths[-1] * 2 <= largest:
        widths.append(widths[-1] * 2)
    runs = {
        name: measure(config, widths, base_width=base, report=say)
        for name, base in (("standard", 0), ("muP", smallest))
    }
    found = {name: powers(widths, sizes) for name, sizes in runs.items()}
    table = Table(
        "place",
        *(f"{what}, {name}" for what in ("size", "change") for name in runs),
        title=f"powers of the width ({smallest} to {widths[-1]}) after {steps} steps",
    )
    for place in PLACES:
        table.add_row(place, *(f"{found[name][place][which]:+.2f}" for which in (0, 1) for name in runs))
    console(width=110).print(table)
    holds = keeps_its_size(found["muP"])
    verdict = "yes" if holds else "NO"
    say(f"under muP no size grows by a power above {GROWTH}, no change by one beyond +-{GROWTH}: {verdict}")
    say_result({"holds": holds, "widths": widths, "steps": steps, "powers": found})
    return Checked(holds, widths, {name: sizes.size for name, sizes in runs.items()})


def _look(params: dict, model: ModelConfig, batch: Batch) -> dict[str, np.ndarray]:
    logits_BTV, seen = look(params, model, batch.tokens)
    blocks = seen.blocks
    inside = (seen.token_embedding, blocks.attention_output, blocks.mlp_output, blocks.block_output[-1])
    return dict(zip(PLACES, (*inside, logits_BTV), strict=True))
