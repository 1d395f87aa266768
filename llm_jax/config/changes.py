"""What may change while a run goes on: every setting by what a change of it does to the run, as a table.

A run keeps the list of its changes, oldest first: JSON objects with "step" (the last one done before),
"batch" (index of the next batch then) and "changes" (setting -> [before, after]), and what `entry` is given
besides.
From the newest configuration and that list follows the one that held in any step.
"""

import copy
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from llm_jax.config.load import config_from_dict
from llm_jax.config.run import Config

Kind = Literal["free", "future", "fixed"]
Changes = Mapping[str, Sequence[Any]]  # setting -> (before, after), as JSON values
History = Sequence[Mapping[str, Any]]

# No number of training depends on these: where things lie (a text is known by its hash, a model to start from
# by that of its weights), and what is measured, shown and kept.
FREE = frozenset(
    [
        *(
            f"data.{name}"
            for name in ("corpus", "format", "text_column", "text_limit_mb", "errors", "prepared")
        ),
        *(f"data.clean.{name}" for name in ("html", "unicode", "control_characters", "boilerplate")),
        *("data.clean.languages", "data.clean.mask_contacts"),
        *(f"train.{name}" for name in ("run", "init_from", "steps_per_dispatch", "eval_interval")),
        *(f"train.{name}" for name in ("eval_batch_size", "eval_stride", "save_interval", "save_minutes")),
        *(f"train.{name}" for name in ("keep", "log_interval", "tracker", "prompt", "sample_tokens")),
        *(f"train.sampling.{name}" for name in ("repetition_penalty", "temperature", "top_k", "top_p")),
        *("train.sampling.min_p", "train.patience"),
    ]
)

# The steps after a change depend on these, if only by rounding; what was done, and the state's form, do not.
FUTURE = frozenset(
    [
        *(f"model.{name}" for name in ("dropout", "embedding_dropout", "router_balance")),
        *(f"model.{name}" for name in ("dtype", "layers", "remat", "attention")),
        *(f"optim.{name}" for name in ("learning_rate", "beta1", "beta2", "eps", "weight_decay")),
        *(f"optim.{name}" for name in ("clip_norm", "schedule", "warmup_steps", "decay_fraction")),
        *(f"optim.{name}" for name in ("final_fraction", "ema_decay")),
        *(f"train.{name}" for name in ("seed", "steps", "order", "batch_size", "accumulation_steps")),
        "train.max_skipped",
    ]
)

# What the model, its tokens, its data or the optimizer's state is, or how the run began.
FIXED = frozenset(
    [
        *(f"model.{name}" for name in ("vocab_size", "shared_ids", "spare_embedding_rows", "context_length")),
        *(f"model.{name}" for name in ("d_model", "num_layers", "num_heads", "num_kv_heads", "d_head")),
        *(f"model.{name}" for name in ("d_ff", "positions", "norm", "norm_place", "norm_eps", "activation")),
        *(f"model.{name}" for name in ("gated_mlp", "num_experts", "experts_per_token", "qk_norm")),
        *(f"model.{name}" for name in ("router_normalizes", "sliding_window", "global_every")),
        *(f"model.{name}" for name in ("attention_scale", "attention_cap", "logit_cap", "embedding_scale")),
        *(f"model.{name}" for name in ("qkv_bias", "output_bias", "mlp_bias", "tied_head", "head_bias")),
        *(f"model.{name}" for name in ("initializer", "base_width", "param_dtype")),
        *(f"model.rotary.{name}" for name in ("theta", "local_theta", "fraction", "scaling", "factor")),
        *(f"model.rotary.{name}" for name in ("original_context", "slow_turns", "fast_turns", "magnitude")),
        "model.rotary.round_pairs",
        *(f"data.{name}" for name in ("tokenizer", "bpe_vocab_size", "compact_vocab", "compact_min_count")),
        *(f"data.{name}" for name in ("rare_ids", "validation_fraction", "document_separator")),
        *("optim.optimizer", "optim.decay", "model.num_labels"),
        *("optim.frozen", "optim.lora.rank", "optim.lora.alpha", "optim.lora.kind", "optim.lora.targets"),
        *("task.prompt_column", "task.answer_column"),
        *("model.factor_values", "model.factor_slots", "task.factors"),
        *(f"task.{name}" for name in ("name", "label_column", "test_fraction", "split_seed", "pooling")),
        *(f"task.{name}" for name in ("lookahead", "read_twice", "class_weights")),
    ]
)

# Whether these are set at all decides what the state holds, and how the run began.
_SWITCHES = ("optim.ema_decay", "train.init_from")


def kind_of(name: str, before: Any, after: Any) -> Kind:
    """Return what the change of a setting from one value to another does to a run."""
    if name in FIXED or (name in _SWITCHES and bool(before) != bool(after)):
        return "fixed"
    return "free" if name in FREE else "future"


def of_kind(changes: Changes, *kinds: Kind) -> dict[str, Sequence[Any]]:
    """Return those of some changes that are of these kinds."""
    return {name: values for name, values in changes.items() if kind_of(name, *values) in kinds}


def said(changes: Changes) -> str:
    """Return changes as one line: 'section.field: before -> after; ...'."""
    return "; ".join(f"{name}: {before} -> {after}" for name, (before, after) in changes.items())


def entry(step: int, batch: int, changes: Changes, **more: Any) -> dict[str, Any]:
    """Return a line of a run's history: what changed after a step, when the next batch had this index."""
    pairs = {name: list(pair) for name, pair in changes.items()}
    return {"step": step, "batch": batch, "changes": pairs, **more}


def config_at(config: Mapping[str, Any], history: History, step: int, source: str) -> Config:
    """Return the configuration under which a step was done, but for what is free, which stays as it is now.

    Args:
        config: the newest one, as nested values.
        history: the run's changes.
        step: numbered from 1.
        source: names the configuration in messages.
    """
    values: Any = copy.deepcopy(dict(config))
    for line in reversed([line for line in history if line["step"] >= step]):
        for name, (before, _) in of_kind(line["changes"], "future").items():
            *sections, field = name.split(".")
            section = values
            for part in sections:
                section = section[part]
            section[field] = before
    return config_from_dict(values, source)


def sequences_before(history: History) -> tuple[int, int]:
    """Return a batch, and how many sequences the run drew in the batches before it: those after it have the
    newest configuration's size.
    """
    batch = sequences = 0
    for line in history:
        if size := line["changes"].get("train.batch_size"):
            sequences += (line["batch"] - batch) * size[0]
            batch = line["batch"]
    return batch, sequences
