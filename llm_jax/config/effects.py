"""Which settings have an effect under which others, as a table, and what becomes of a given one without.

Only what a file or an option gives is looked at: a default, and what a model brings, asks for nothing. A
setting that has no effect is refused; but where something given in a later file or as an option made it so,
it was right where it stands, and is left out with a line that says so. Stored configurations are not looked
at, so old ones are read.
"""

import dataclasses
from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple, TypeVar

from llm_jax.base.errors import UserError
from llm_jax.base.tree import flatten
from llm_jax.config.cleaning import CleaningConfig
from llm_jax.config.task import LABELLED

Values = Mapping[str, Any]  # setting -> value; "model.rotary.theta", or as the command calls it
Record = TypeVar("Record", bound=Any)


class Need(NamedTuple):
    """What must hold for a setting to have an effect."""

    switches: tuple[str, ...]  # settings that decide it
    holds: Callable[[Values], bool]
    remedy: str


class Effect(NamedTuple):
    """When a setting has an effect: all needs hold, or it is given as what asks for nothing."""

    needs: tuple[Need, ...]
    off: Any = None


def _one_of(switch: str, *values: Any) -> Need:
    wanted = " or ".join(str(value) for value in values)
    return Need((switch,), lambda given: given[switch] in values, f"set {switch} = {wanted}")


def _above_zero(switch: str) -> Need:
    return Need((switch,), lambda given: given[switch] > 0, f"set {switch} above 0")


def _given(switch: str) -> Need:
    return Need((switch,), lambda given: bool(given.get(switch)), f"set {switch}")


def _left_out(switch: str) -> Need:
    return Need((switch,), lambda given: not given.get(switch), f"leave out {switch}")


def _has_global_layers(given: Values) -> bool:
    every = given["model.global_every"]
    return not given["model.sliding_window"] or 0 < every <= given["model.num_layers"]


_WINDOW, _EVERY = "model.sliding_window", "model.global_every"
_LOCAL, _CONTEXT = "model.rotary.local_theta", "model.context_length"
_EXPERTS, _TAKEN = "model.num_experts", "model.experts_per_token"

_ROTARY = _one_of("model.positions", "rotary")
# Layers with a window have a base of their own, and no other rotary setting but `fraction`.
_FAR = Need(
    (_LOCAL, _WINDOW, _EVERY),
    lambda given: not given[_LOCAL] or _has_global_layers(given),
    f"let {_EVERY} leave layers without a window",
)
_STRETCHED = _one_of("model.rotary.scaling", "linear", "llama3", "yarn")
_BY_TURNS = _one_of("model.rotary.scaling", "llama3", "yarn")
_SOME_WINDOW = Need((_EVERY,), lambda given: given[_EVERY] != 1, f"set {_EVERY} = 0, or above 1")
_SHORT_WINDOW = Need(
    (_CONTEXT, _LOCAL),
    lambda given: given[_WINDOW] < given[_CONTEXT] or given[_LOCAL] > 0,
    f"set it below {_CONTEXT}",
)
_CHOICE = Need(
    (_TAKEN, _EXPERTS),
    lambda given: not given[_EXPERTS] or given[_TAKEN] < given[_EXPERTS],
    f"set {_TAKEN} below {_EXPERTS}",
)
_MERGES = _one_of("data.tokenizer", "cl100k_base", "gpt2", "o200k_base")
_COMPACT = _one_of("data.compact_vocab", True)
_LABELLED = _one_of("task.name", *LABELLED)
_OF_ROWS = _one_of("task.name", "conversation", *LABELLED)
_FACTORS = _given("task.factors")
_NO_ADAPTERS = Need(
    ("optim.lora.rank",), lambda given: not given["optim.lora.rank"], "set optim.lora.rank = 0"
)
_RUNNING_TEXT = Need(
    ("task.name",), lambda given: given.get("task.name") not in LABELLED, "set task.name = language_modelling"
)
_DRAWS = _above_zero("temperature")
_SAMPLES_DRAW = _above_zero("train.sampling.temperature")

EFFECTS: dict[str, Effect] = {
    "model.shared_ids": Effect((_above_zero("model.vocab_size"),), off=0),
    "model.rotary.theta": Effect((_ROTARY, _FAR)),
    _LOCAL: Effect((_ROTARY, _above_zero(_WINDOW), _SOME_WINDOW), off=0),
    "model.rotary.fraction": Effect((_ROTARY,)),
    "model.rotary.scaling": Effect((_ROTARY, _FAR), off="none"),
    "model.rotary.factor": Effect((_ROTARY, _FAR, _STRETCHED)),
    "model.rotary.original_context": Effect((_ROTARY, _FAR, _BY_TURNS)),
    "model.rotary.slow_turns": Effect((_ROTARY, _FAR, _BY_TURNS)),
    "model.rotary.fast_turns": Effect((_ROTARY, _FAR, _BY_TURNS)),
    "model.rotary.magnitude": Effect((_ROTARY, _FAR)),
    "model.rotary.round_pairs": Effect((_ROTARY, _FAR, _one_of("model.rotary.scaling", "yarn"))),
    _TAKEN: Effect((_above_zero(_EXPERTS),)),
    "model.router_normalizes": Effect((_above_zero(_EXPERTS), _CHOICE)),
    "model.router_balance": Effect((_above_zero(_EXPERTS), _CHOICE)),
    _WINDOW: Effect((_SOME_WINDOW, _SHORT_WINDOW), off=0),
    _EVERY: Effect(
        (
            _above_zero(_WINDOW),
            Need(
                ("model.num_layers",),
                lambda given: given[_EVERY] <= given["model.num_layers"],
                "set it to model.num_layers or below",
            ),
        ),
        off=0,
    ),
    "model.num_labels": Effect((_LABELLED,), off=0),
    "optim.frozen": Effect((_NO_ADAPTERS,), off=""),
    "optim.lora.rank": Effect((_given("train.init_from"),), off=0),
    "optim.lora.alpha": Effect((_above_zero("optim.lora.rank"),)),
    "optim.lora.kind": Effect((_above_zero("optim.lora.rank"),)),
    "optim.lora.targets": Effect((_above_zero("optim.lora.rank"),)),
    "model.factor_values": Effect((_FACTORS,), off=0),
    "model.factor_slots": Effect((_FACTORS,), off=0),
    "task.factors": Effect((_LABELLED,), off=""),
    "task.prompt_column": Effect((_one_of("task.name", "conversation"),), off=""),
    "task.answer_column": Effect((_one_of("task.name", "conversation"),), off=""),
    "task.label_column": Effect((_LABELLED,), off=""),
    "task.test_fraction": Effect((_OF_ROWS,)),
    "task.split_seed": Effect((_OF_ROWS,)),
    "task.pooling": Effect((_one_of("task.name", "classification"),)),
    "task.lookahead": Effect((_LABELLED,), off=0),
    "task.read_twice": Effect((_LABELLED,), off=False),
    "task.class_weights": Effect((_LABELLED,), off="none"),
    "data.document_separator": Effect((_RUNNING_TEXT,), off="auto"),
    **{
        f"data.clean.{name}": Effect((_RUNNING_TEXT,), off=off)
        for name, off in dataclasses.asdict(CleaningConfig()).items()
    },
    "model.initializer": Effect((_left_out("train.init_from"),)),
    "data.bpe_vocab_size": Effect((_one_of("data.tokenizer", "bpe"),)),
    "data.compact_vocab": Effect((_MERGES,), off=False),
    "data.compact_min_count": Effect((_MERGES, _COMPACT)),
    "data.rare_ids": Effect((_MERGES, _COMPACT)),
    "optim.decay": Effect((_above_zero("optim.weight_decay"),)),
    "optim.decay_fraction": Effect((_one_of("optim.schedule", "wsd"),)),
    "optim.final_fraction": Effect((_one_of("optim.schedule", "cosine", "wsd"),)),
    "train.steps": Effect((_left_out("time"),)),
    "train.eval_interval": Effect((_left_out("time"),)),
    "train.save_interval": Effect((_left_out("time"),)),
    "train.sampling.top_k": Effect((_SAMPLES_DRAW,), off=0),
    "train.sampling.top_p": Effect((_SAMPLES_DRAW,), off=1.0),
    "train.sampling.min_p": Effect((_SAMPLES_DRAW,), off=0),
    # Of commands that draw tokens.
    "seed": Effect((_DRAWS,)),
    "top_k": Effect((_DRAWS,), off=0),
    "top_p": Effect((_DRAWS,), off=1.0),
    "min_p": Effect((_DRAWS,), off=0),
    "draft": Effect((_above_zero("speculate"),)),
}

ALWAYS = frozenset(
    [
        *(f"model.{name}" for name in ("vocab_size", "spare_embedding_rows", "context_length", "d_model")),
        *(f"model.{name}" for name in ("num_layers", "num_heads", "num_kv_heads", "d_head", "d_ff")),
        *(f"model.{name}" for name in ("positions", "norm", "norm_place", "norm_eps", "activation")),
        *(f"model.{name}" for name in ("gated_mlp", "num_experts", "qk_norm", "attention_scale")),
        *(f"model.{name}" for name in ("attention_cap", "logit_cap", "embedding_scale", "qkv_bias")),
        *(f"model.{name}" for name in ("output_bias", "mlp_bias", "tied_head", "head_bias", "dropout")),
        *(f"model.{name}" for name in ("embedding_dropout", "base_width", "dtype", "param_dtype", "layers")),
        *("model.remat", "model.attention"),
        *(f"data.{name}" for name in ("corpus", "tokenizer", "validation_fraction", "errors", "prepared")),
        *("data.format", "data.text_column", "data.text_limit_mb", "train.tracker"),
        *(f"optim.{name}" for name in ("optimizer", "learning_rate", "beta1", "beta2", "eps")),
        *(f"optim.{name}" for name in ("weight_decay", "clip_norm", "schedule", "warmup_steps", "ema_decay")),
        *(f"train.{name}" for name in ("run", "init_from", "seed", "order", "batch_size", "keep")),
        *(f"train.{name}" for name in ("accumulation_steps", "steps_per_dispatch", "eval_batch_size")),
        *(f"train.{name}" for name in ("eval_stride", "log_interval", "sample_tokens", "max_skipped")),
        *("train.save_minutes", "train.patience", "task.name"),
        *("train.sampling.repetition_penalty", "train.sampling.temperature"),
        "train.prompt",  # the report cuts it into tokens, also of a run without samples
        *("repetition_penalty", "temperature", "speculate", "regex", "json_schema"),
    ]
)


def settle(
    config: Record, given: Mapping[str, int], options: Values, report: Callable[[str], None]
) -> tuple[Record, dict[str, int]]:
    """Return a configuration, and what of it was given, without the settings that something given later made
    idle.

    Args:
        config: with sections as in `Config`.
        given: settings that were given, and options of the command, each with the number of the file it
            stands in; options have the highest.
        options: values of the command's own options.
        report: gets a line where settings were left out.

    Raises:
        UserError: a given setting has no effect.
    """
    values = {**values_of(config), **options}
    idle = find_idle(values, given)
    if not idle:
        return config, dict(given)
    said = ", ".join(f"{name} ({_said(need, values)})" for name, need in idle.items())
    report(f"left out, as they have no effect: {said}")
    # What an option decides in a setting's place keeps its value until then.
    own = [name for name, need in idle.items() if not options.keys() & set(need.switches)]
    return _reset(config, own), {name: rank for name, rank in given.items() if name not in idle}


def values_of(config: Any) -> dict[str, Any]:
    """Return all settings of a configuration or of one section, by their names with dots."""
    return {path.replace("/", "."): value for path, value in flatten(dataclasses.asdict(config))}


def find_idle(values: Values, given: Mapping[str, int], section: str = "") -> dict[str, Need]:
    """Return settings that something given later made idle, each with what it would need.

    Args:
        values: of all settings.
        given: as `settle` takes it.
        section: "data.", say, where names are said without it.

    Raises:
        UserError: others have no effect, as given; the line names them, why, and what to do.
    """
    refused, idle = [], {}
    for name in given:
        needs = unmet(name, values)
        later = [need for need in needs if _rank(need, given) > given[name]]
        if needs and needs == later:
            idle[name] = needs[0]
        elif needs:
            need = next(need for need in needs if need not in later)
            refused.append(f"{name} has no effect with {_said(need, values)}: leave it out, or {need.remedy}")
    if refused:
        raise UserError("; ".join(refused).replace(section or "\0", ""))
    return idle


def unmet(name: str, values: Values) -> list[Need]:
    """Return what keeps a setting with its value from having an effect; nothing where it has one, or is
    off.
    """
    effect = EFFECTS.get(name)
    if effect is None or (effect.off is not None and values[name] == effect.off):
        return []
    return [need for need in effect.needs if not need.holds(values)]


def _rank(need: Need, given: Mapping[str, int]) -> int:
    return max(given.get(switch, -1) for switch in need.switches)


def _said(need: Need, values: Values) -> str:
    return " and ".join(f"{switch} = {values[switch]}" for switch in need.switches)


def _reset(record: Record, names: Collection[str]) -> Record:
    """The record with these settings at their defaults, all at once, since rules hold between them."""
    changes = {}
    for field in dataclasses.fields(record):
        inner = [name.removeprefix(f"{field.name}.") for name in names if name.startswith(f"{field.name}.")]
        if field.name in names:
            changes[field.name] = field.default
        elif inner:
            changes[field.name] = _reset(getattr(record, field.name), inner)
    return dataclasses.replace(record, **changes)
