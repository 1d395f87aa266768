"""One dial for a run: from the number of layers to all settings, each by a rule with its source.

What a user gave stays, and rules that build on it take it as it is. Nothing is measured here and no text is
read: parameters and tokens are arguments.
"""

import dataclasses
import math
from collections.abc import Collection, Iterable
from typing import Any, NamedTuple

from llm_jax.base.errors import UserError
from llm_jax.config.run import Config

BASE_WIDTH = 128  # of the runs in which the rates were found
TOKENS_PER_PARAMETER = 20
MOST_EPOCHS = 4
_HEAD_WIDTH = 64
_CONTEXTS = (64, 2048)
_RATES = {"muon": 4e-3, "adamw": 3e-3}

_LOG = "docs/experiments.md"
_NANOCHAT = "Karpathy 2025, nanochat"
_MUP = "Yang et al. 2022"


class Derived(NamedTuple):
    """A setting, its value, and where that is from."""

    setting: str  # "model.d_model"
    value: Any
    rule: str
    source: str


class Rules:
    """Rows one after another: a setting that the user gave keeps its value."""

    def __init__(self, config: Config, given: Collection[str]) -> None:
        self.config, self.given = config, given
        self.rows: list[Derived] = []

    def own(self, setting: str) -> Any:
        """Return the user's value, or None where there is none."""
        section, name = setting.split(".")
        return getattr(getattr(self.config, section), name) if setting in self.given else None

    def add(self, setting: str, value: Any, rule: str, source: str) -> Any:
        """Add a row and give the value that holds."""
        own = self.own(setting)
        row = Derived(setting, value, rule, source) if own is None else Derived(setting, own, "yours", "")
        self.rows.append(row)
        return row.value


def derive_model(depth: int, config: Config, given: Collection[str]) -> list[Derived]:
    """Return the decoder's settings, those of the optimizer and the order of the text.

    Args:
        depth: number of layers.
        config: the user's.
        given: settings that the user gave, such as "model.d_model".

    Raises:
        UserError: depth is not a number of layers, or the user gave another.
    """
    rules = Rules(config, given)
    if depth < 1:
        raise UserError(f"depth ({depth}) must be at least 1")
    if rules.own("model.num_layers") not in (None, depth):
        raise UserError(f"depth ({depth}) and num_layers ({config.model.num_layers}) must agree: give one")
    rules.add("model.num_layers", depth, "depth", "")
    width = rules.add("model.d_model", 64 * depth, "64 x depth", _NANOCHAT)
    _add_attention(rules, width)
    rules.add("model.d_ff", 4 * width, "4 x d_model", "Vaswani et al. 2017")
    rules.add(
        "model.context_length",
        _context(width),
        "d_model, up to a power of 2; 64 to 2,048",
        "GPT-2: 1,024 at 768",
    )
    for setting, value, rule, source in _PARTS:
        rules.add(setting, value, rule, source)
    if rules.add("model.tied_head", False, "a head has rates of its own", _MUP):
        rules.add("model.base_width", 0, "a tied head has no muP", _MUP)
    else:
        rules.add("model.base_width", BASE_WIDTH, "width at which the rates were found", f"{_MUP}; {_LOG}")
    optimizer = rules.add("optim.optimizer", "muon", "0.18 nats better than AdamW", _LOG)
    rules.add("optim.learning_rate", _RATES[optimizer], "best at 4 x 128; muP carries it to this width", _LOG)
    rules.add("optim.beta2", 0.99, "small batches", f"nanoGPT; {_LOG}")
    rules.add("optim.weight_decay", 0.1, "Muon's weights grow without", "Liu et al. 2025")
    rules.add("optim.decay", "matrices", "no biases, no norms", "nanoGPT")
    rules.add("optim.clip_norm", 1.0, "usual", "Brown et al. 2020")
    rules.add("optim.schedule", "wsd", "warm-up, then ...", _LOG)
    rules.add("optim.decay_fraction", 1.0, "... a straight line to 0", f"Bergsma et al. 2025; {_LOG}")
    rules.add("train.order", "permutation", "every window once an epoch", "")
    return rules.rows


# Parts that do not depend on the depth.
_PARTS = (
    ("model.positions", "rotary", "0.17 nats better than learned", _LOG),
    ("model.norm", "rms", "no mean, no bias", "Zhang and Sennrich 2019"),
    ("model.qk_norm", "head", "0.25 nats better than none", _LOG),
    ("model.activation", "relu_squared", "0.06 nats better than GELU", f"So et al. 2021; {_LOG}"),
    ("model.qkv_bias", False, "no biases", "Chowdhery et al. 2022"),
    ("model.output_bias", False, "no biases", "Chowdhery et al. 2022"),
    ("model.mlp_bias", False, "no biases", "Chowdhery et al. 2022"),
    ("model.head_bias", False, "no biases", "Chowdhery et al. 2022"),
    ("model.initializer", "gpt2", "smaller into the residual", "Radford et al. 2019"),
    ("model.dropout", 0.0, f"at most {MOST_EPOCHS} epochs", _LOG),
)


def _add_attention(rules: Rules, width: int) -> None:
    own_heads, own_head_width = rules.own("model.num_heads"), rules.own("model.d_head")
    if own_head_width:
        head_width = own_head_width
    elif own_heads and not width % own_heads:
        head_width = width // own_heads
    else:
        head_width = min(_HEAD_WIDTH, width)
    heads = rules.add("model.num_heads", -(-width // head_width), "d_model / d_head", "")
    rules.add("model.num_kv_heads", heads, "as many as num_heads", _NANOCHAT)
    rules.add("model.d_head", head_width, "64, or d_model / your num_heads", "GPT-2")
    rules.add("model.attention_scale", 1 / math.sqrt(head_width), "1 / sqrt(d_head)", "Vaswani et al. 2017")


def _context(width: int) -> int:
    least, most = _CONTEXTS
    return min(most, max(least, 2 ** math.ceil(math.log2(width))))


def derive_run(
    config: Config, given: Collection[str], parameters: int, training_tokens: int, *, timed: bool
) -> list[Derived]:
    """Return batch, steps and what depends on them, for a model of so many parameters and a text of so many
    tokens.

    Args:
        config: with the model's settings in it.
        given: settings that the user gave.
        parameters: of the whole model.
        training_tokens: of the training split.
        timed: whether a time decides about steps and schedule.
    """
    rules = Rules(config, given)
    wanted, most = TOKENS_PER_PARAMETER * parameters, MOST_EPOCHS * training_tokens
    horizon = min(wanted, most)
    tokens, context = 0.58 * horizon**0.571, config.model.context_length
    parts = config.train.accumulation_steps  # which a batch must be divisible by
    batch_size = rules.add(
        "train.batch_size",
        parts * max(1, round(tokens / context / parts)),
        f"0.58 D^0.571 = {tokens:,.0f} tokens for D = {horizon:,}",
        "Li et al. 2025, Step Law",
    )
    if timed:
        return rules.rows
    if wanted <= most:
        rule = f"{TOKENS_PER_PARAMETER} tokens for each of {parameters:,} parameters"
        source = "Hoffmann et al. 2022"
    else:
        epochs = f"{wanted / training_tokens:,.0f}"
        rule = f"{MOST_EPOCHS} epochs; {TOKENS_PER_PARAMETER} tokens a parameter would be {epochs}"
        source = "Muennighoff et al. 2023"
    steps = rules.add("train.steps", max(1, round(horizon / (batch_size * context))), rule, source)
    rules.add(
        "optim.warmup_steps", min(1000, math.ceil(steps / 32)), "a 32nd of the steps, at most 1,000", _LOG
    )
    rules.add("train.eval_interval", math.ceil(steps / 10), "10 in a run", "")
    rules.add("train.save_interval", math.ceil(steps / 10), "10 in a run", "")
    return rules.rows


def with_derived(config: Config, rows: Iterable[Derived]) -> Config:
    """Return the configuration with these settings.

    Raises:
        UserError: they do not go together with the rest.
    """
    values: dict[str, dict[str, Any]] = {}
    for row in rows:
        section, name = row.setting.split(".")
        values.setdefault(section, {})[name] = row.value
    sections = {name: dataclasses.replace(getattr(config, name), **fields) for name, fields in values.items()}
    return dataclasses.replace(config, **sections)
