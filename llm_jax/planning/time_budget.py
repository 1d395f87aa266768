"""A run that fits into a time: the arithmetic of `--time`, from rates that others measure.

The ladder's bounds come from the log of experiments: 4 M parameters that saw 2.7 M tokens of a text of 70,127
were this house's best model of that text.
"""

import dataclasses
import math
import re
from collections.abc import Collection, Sequence
from typing import NamedTuple

from llm_jax.base.errors import UserError
from llm_jax.config.run import Config

_UNITS = {"h": 3600, "m": 60, "s": 1}
_TOKENS_SEEN_PER_PARAMETER = 0.5  # at least
_PARAMETERS_PER_TRAINING_TOKEN = 64  # at most
_LOOKING_SHARE = 0.1  # of the training time, at most, for evaluations and saves on the way
_MOST_EVALUATIONS = 10
_MARGIN = 0.97  # of the time that is left for steps: later ones are a little slower than timed ones


class Size(NamedTuple):
    """A rung of the ladder of models, with the batch that goes with it."""

    d_model: int
    num_layers: int
    num_heads: int
    context_length: int  # tokens
    batch_size: int  # sequences


LADDER = (
    Size(64, 4, 4, 64, 8),
    Size(128, 4, 4, 64, 8),
    Size(192, 4, 4, 128, 8),
    Size(256, 4, 4, 128, 12),
    Size(384, 6, 6, 128, 16),
    Size(512, 8, 8, 256, 16),
    Size(768, 12, 12, 512, 16),
)


# What a plan decides, unless it is given.
_PLANNED = {
    "model": [name for name in Size._fields if name != "batch_size"],
    "optim": ["schedule", "warmup_steps"],
    "train": ["batch_size", "steps", "eval_interval", "save_interval"],
}


class Costs(NamedTuple):
    """What was measured before the plan, in seconds."""

    elapsed: float  # since the process began
    compile: float  # making the train step's program for another number of steps, or finding it kept
    step: float
    evaluation: float  # of the whole validation split
    save: float
    ending: float  # the last sample and the report


class Plan(NamedTuple):
    """A configuration and what it is expected to take."""

    config: Config
    tokens: int  # that training sees, repeats counted
    seconds: float  # from the process's start to its end


def parse_time(text: str) -> int:
    """Return seconds of a time such as 90s, 3m, 1h or 1h30m.

    Raises:
        UserError: it is not such a time, or nothing.
    """
    found = re.fullmatch(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?", text, re.ASCII)
    parts = found.groups(default="0") if found else ()
    seconds = sum(int(part) * unit for part, unit in zip(parts, _UNITS.values(), strict=False))
    if not seconds:
        raise UserError(f"time ({text}) must be like 90s, 3m, 1h or 1h30m, and above 0")
    return seconds


def with_size(config: Config, size: Size) -> Config:
    """Return the configuration with a rung's model and batch."""
    fields = size._asdict()
    batch_size = fields.pop("batch_size")
    return dataclasses.replace(
        config,
        model=dataclasses.replace(config.model, **fields),
        train=dataclasses.replace(config.train, batch_size=batch_size),
    )


def is_sized(config: Config, given: Collection[str] = ()) -> bool:
    """Return whether d_ff or a field of the ladder is given or not the default, or the model is one to start
    from: then the size is the user's own.
    """
    own = {"model.d_ff", "train.batch_size", *(f"model.{name}" for name in Size._fields)}
    return (
        bool(config.train.init_from)
        or not own.isdisjoint(given)
        or config.model.d_ff != 0
        or with_size(config, _size(Config())) != config
    )


def with_fall(config: Config, given: Collection[str] = ()) -> Config:
    """Return the configuration with a learning rate that falls at the end of the time: a constant one that
    nobody gave becomes warm-up-stable-decay.
    """
    if config.optim.schedule != "constant" or "optim.schedule" in given:
        return config
    return dataclasses.replace(config, optim=dataclasses.replace(config.optim, schedule="wsd"))


def choose_rung(parameters: Sequence[int], tokens_seen: Sequence[float], training_tokens: int) -> int:
    """Return the number of the largest rung that sees half a token for each of its parameters and has at most
    64 parameters for each token of the text; the first where none does.

    Args:
        parameters: of each rung.
        tokens_seen: tokens that each rung could train on in the time.
        training_tokens: tokens of the training split.
    """
    fits = [
        number
        for number, (count, seen) in enumerate(zip(parameters, tokens_seen, strict=True))
        if seen >= _TOKENS_SEEN_PER_PARAMETER * count
        and count <= _PARAMETERS_PER_TRAINING_TOKEN * training_tokens
    ]
    return max(fits, default=0)


def plan_run(config: Config, seconds: float, costs: Costs, given: Collection[str] = ()) -> Plan:
    """Return the steps, evaluations, saves and schedule with which a run ends after so many seconds.

    A warm-up of 0 that nobody gave becomes a twentieth of the steps, at most 100; the schedule is scaled
    over the steps.

    Raises:
        UserError: the time is too short for a step.
    """
    looking = costs.evaluation + costs.save
    before = costs.evaluation if config.train.init_from else 0.0
    fixed = costs.elapsed + costs.compile + costs.save + before + looking + costs.ending
    left = seconds - fixed
    looks = max(0, min(_MOST_EVALUATIONS - 1, math.floor(_LOOKING_SHARE * left / looking)))
    steps = math.floor(_MARGIN * (left - looks * looking) / costs.step)
    if steps < 1:
        raise UserError(
            f"time ({seconds:.0f}s) must leave room for training: start, evaluation, sample and report take "
            f"{fixed:.0f} s here; give {math.ceil(fixed + 10)}s or more"
        )
    interval = math.ceil(steps / (looks + 1))
    warmup = config.optim.warmup_steps
    if not warmup and "optim.warmup_steps" not in given:
        warmup = min(100, steps // 20)
    optim = dataclasses.replace(config.optim, warmup_steps=min(steps, warmup))
    train = dataclasses.replace(config.train, steps=steps, eval_interval=interval, save_interval=interval)
    tokens = steps * train.batch_size * config.model.context_length
    expected = fixed + looks * looking + steps * costs.step
    return Plan(dataclasses.replace(config, optim=optim, train=train), tokens, expected)


def adopt_plan(config: Config, planned: Config, given: Collection[str] = ()) -> Config:
    """Return the configuration with everything that a plan decides, and nobody gave, taken from a run that
    was planned before.
    """
    sections = {}
    for section, names in _PLANNED.items():
        theirs = getattr(planned, section)
        free = {name: getattr(theirs, name) for name in names if f"{section}.{name}" not in given}
        sections[section] = dataclasses.replace(getattr(config, section), **free)
    return dataclasses.replace(config, **sections)


def _size(config: Config) -> Size:
    model = config.model
    return Size(
        model.d_model, model.num_layers, model.num_heads, model.context_length, config.train.batch_size
    )
