"""Settings that suit labelled texts, each by a rule with its source: what `fit` runs.

Texts are looked at before they are cut into tokens, so lengths in tokens are estimates.
"""

import math
import re
from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

from llm_jax.config.run import Config
from llm_jax.data.label_files import SEGMENTS
from llm_jax.data.labelled import Example
from llm_jax.planning.depth_rules import Derived, Rules

_LOG = "docs/experiments.md"
_CHARACTERS = 3.0  # of a token, at least on average, in texts of letters
_ASIAN = 2  # UTF-8 bytes of a character, on average, from which on each is a token
_WORD = re.compile(r"[^\W\d_]{2,}|\d{2,}")
_PIECES, _FEW_PIECES = 1024, 320
_CONTEXTS = (64, 512)  # tokens of a row, which texts share
_LONG = 0.99  # of the texts fit
_LORA_RATE = 5e-4
_STEPS = (200, 2000)
_WORD_FACTORS, _CHARACTER_FACTORS = "norm,prefix,suffix,shape,window", "window,pairs"


def derive_fit(config: Config, given: Collection[str], examples: Sequence[Example]) -> list[Derived]:
    """Return the settings of a run on these texts; those that the user gave stay.

    Args:
        config: the user's, with the task's name.
        given: settings that the user gave, such as "model.d_model".
        examples: all of them, in any order.
    """
    rules, tunes = Rules(config, given), bool(config.train.init_from)
    text = "\n".join(each.text for each in examples[:1000])
    is_asian = len(text.encode()) > _ASIAN * len(text)
    per_token = 1.0 if is_asian else _CHARACTERS
    lengths = sorted(math.ceil(len(each.text) / per_token) for each in examples)
    context, recipe = config.model.context_length, _TUNED if tunes else _FRESH[config.task.name]
    if not tunes:
        # Every word is a piece at last: half of them are more than the training split may lack.
        pieces = min(_PIECES, 256 + len(set(_WORD.findall(text))) // 2)
        if is_asian:
            rules.add("data.tokenizer", "characters", "each is a word or a syllable", _LOG)
        elif pieces < _FEW_PIECES and "data.bpe_vocab_size" not in given:
            rules.add("data.tokenizer", "bytes", "few different words", "")
        else:
            rules.add("data.tokenizer", "bpe", "its pieces of rare words tell something", _LOG)
            rules.add("data.bpe_vocab_size", pieces, "few texts", _LOG)
        if config.task.name == "tagging":
            factors = _CHARACTER_FACTORS if config.task.label_column == SEGMENTS else _WORD_FACTORS
            rules.add("task.factors", factors, "few texts: spelling and neighbours tell much", _LOG)
        context = rules.add("model.context_length", _context(lengths), "99 % of the texts fit", "")
        for setting, value, rule, source in _MODEL:
            rules.add(setting, value, rule, source)
    if tunes and config.optim.lora.rank:
        why = "ten times that of full training: adapters begin at nothing"
        rules.add("optim.learning_rate", _LORA_RATE, why, "Schulman et al. 2025")
    for setting, value, rule, source in recipe.settings:
        if setting not in {row.setting for row in rules.rows}:
            rules.add(setting, value, rule, source)
    size = max(1, recipe.row_tokens // context)
    batch = rules.add("train.batch_size", size, f"{recipe.row_tokens:,} tokens", _LOG)
    share = 1 - config.data.validation_fraction - config.task.test_fraction
    tokens = share * sum(min(length, context) for length in lengths)
    steps = _within(_STEPS, math.ceil(recipe.epochs * tokens / (batch * context)))
    steps = rules.add("train.steps", steps, f"about {recipe.epochs} epochs", _LOG)
    for setting, value, rule, source in _ALWAYS:
        rules.add(setting, value, rule, source)
    rules.add("optim.warmup_steps", min(20, steps // 10), "a tenth, at most 20", "")
    interval = max(1, steps // 6)
    rules.add("train.eval_interval", interval, "6 evaluations", "")
    rules.add("train.save_interval", interval, "as often", "")
    return rules.rows


class _Recipe(NamedTuple):
    """How a model is trained for a task."""

    epochs: int
    row_tokens: int  # of a batch
    settings: Sequence[tuple[str, Any, str, str]]


# Of models from scratch: they are small, since the texts are few.
_MODEL = (
    ("model.d_model", 64, "few texts", _LOG),
    ("model.num_heads", 4, "d_model / 16", ""),
    ("model.positions", "rotary", "texts share rows of any length", ""),
    ("model.norm", "rms", "no mean, no bias", "Zhang and Sennrich 2019"),
    ("model.qk_norm", "head", "rates may be high", _LOG),
    ("model.dropout", 0.3, "many epochs", _LOG),
    ("optim.optimizer", "muon", "faster on small batches", _LOG),
    ("optim.weight_decay", 0.1, "Muon's weights grow without", "Liu et al. 2025"),
)
_FRESH = {
    "classification": _Recipe(
        20,
        2048,
        (
            ("model.num_layers", 2, "few texts", _LOG),
            ("model.embedding_dropout", 0.2, "many epochs", _LOG),
            ("optim.learning_rate", 3e-3, "", _LOG),
        ),
    ),
    "tagging": _Recipe(
        12,
        512,
        (
            ("model.num_layers", 1, "neighbours are read beside each word", _LOG),
            ("model.embedding_dropout", 0.5, "many epochs", _LOG),
            ("optim.learning_rate", 1e-2, "small batches of few texts", _LOG),
        ),
    ),
}
_TUNED = _Recipe(
    3,
    2048,
    (
        ("optim.learning_rate", 5e-5, "small, to keep what was learnt", "Devlin et al. 2018"),
        ("optim.weight_decay", 0.01, "usual", "Devlin et al. 2018"),
    ),
)
_ALWAYS = (
    ("optim.decay", "matrices", "no biases, no norms", "nanoGPT"),
    ("optim.clip_norm", 1.0, "usual", "Brown et al. 2020"),
    ("optim.schedule", "cosine", "", "Loshchilov and Hutter 2016"),
    ("train.order", "permutation", "every text once an epoch", ""),
)


def _context(lengths: Sequence[int]) -> int:
    least, most = _CONTEXTS
    long = lengths[min(len(lengths) - 1, int(_LONG * len(lengths)))] + 2
    return min(most, max(least, 2 ** math.ceil(math.log2(long))))


def _within(bounds: tuple[int, int], number: int) -> int:
    return min(max(number, bounds[0]), bounds[1])
