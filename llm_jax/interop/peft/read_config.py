"""The adapter_config.json of a LoRA adapter, as the library peft writes it: every field is taken, or known to
change no weight, or refused by name.
"""

import math
import re
from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple

from llm_jax.base.errors import CheckpointError
from llm_jax.interop.fields import Fields
from llm_jax.interop.source import quoted

_NAME = "adapter_config.json"
# About training, loading or the file itself. Which modules were adapted is one of these (names, an expression
# or "all-linear", less what is excluded, in some layers alone): the file has factors for those and no others.
# So is fan_in_fan_out: peft goes by the kind of each layer and overrules the field, which holds for one kind.
_NOT_THE_WEIGHTS = {
    *("auto_mapping", "base_model_name_or_path", "inference_mode", "peft_version", "revision", "task_type"),
    *("exclude_modules", "layers_pattern", "layers_to_transform", "target_modules"),
    *("eva_config", "fan_in_fan_out", "init_lora_weights", "lora_dropout", "megatron_core"),
    *("ensure_weight_tying", "qalora_group_size"),
}
# With these an adapter is more than its factors, or another thing.
_MORE = (
    *("alora_invocation_tokens", "arrow_config", "corda_config", "kasa_config"),
    *("layer_replication", "loftq_config", "lora_bias", "lora_ga_config", "megatron_config"),
    *("monteclora_config", "target_parameters", "trainable_token_indices", "use_bdlora"),
    *("use_dora", "use_qalora", "velora_config"),
)
# The others begin with factors that they take off the base's weights, or round those.
_STARTS = (True, False, "gaussian", "eva", "orthogonal", "mica")
_MAX_PATTERNS = 10_000
_MAX_PATTERN = 200  # characters
_FORK = re.compile(r"[*+?{|]")  # where a match can go on in more than one way
_NESTED = re.compile(r"\)[*+?{]")
_MAX_FORKS = 3  # in a pattern
_MAX_FORKED = 20  # patterns

_Patterns = list[tuple[re.Pattern[str], Any]]


class AdapterConfig(NamedTuple):
    """How large the factors are and what their product is multiplied by; a module is the name of one in the
    base model, as "model.layers.0.self_attn.q_proj".
    """

    r: int
    alpha: float
    ranks: _Patterns
    alphas: _Patterns
    rank_stabilized: bool
    saved: list[str]  # ends of names of modules that the file holds whole

    def rank(self, module: str) -> int:
        """Return the rank of a module's factors."""
        return _first(self.ranks, module, self.r)

    def scale(self, module: str) -> float:
        """Return alpha / r, or alpha / sqrt(r) where it is stabilized (Kalajdzievski 2023,
        arXiv:2312.03732).
        """
        rank = self.rank(module)
        return _first(self.alphas, module, self.alpha) / (math.sqrt(rank) if self.rank_stabilized else rank)


def read_adapter_config(config: Mapping[str, Any], ignored: Collection[str] = ()) -> AdapterConfig:
    """Return what an adapter_config.json says.

    Args:
        config: its fields.
        ignored: fields that are passed over though this program does not know them.

    Raises:
        CheckpointError: it is of another method than LoRA, a field is missing or of another type, or one asks
            for something that factors alone are not.
    """
    fields, found = _read(config)
    fields.finish(ignored, _NOT_THE_WEIGHTS)
    return found


def adapter_fields(config: Mapping[str, Any]) -> Fields:
    """Return the fields of an adapter_config.json after `read_adapter_config` has taken those that it uses.

    Raises:
        CheckpointError: likewise.
    """
    return _read(config)[0]


def _read(config: Mapping[str, Any]) -> tuple[Fields, AdapterConfig]:
    fields = Fields(config, _NAME)
    if (method := fields.take("peft_type", str)) != "LORA":
        raise CheckpointError(f"{_NAME}: peft_type must be 'LORA', got {quoted(method)}")
    fields.require("bias", "none")
    for field in _MORE:
        fields.require(field, None, False, [], {})
    if (start := config.get("init_lora_weights")) not in (None, *_STARTS):
        raise CheckpointError(
            f"{_NAME}: init_lora_weights must leave the base's weights as they are, got {quoted(start)}; "
            "save the adapter with peft's path_initial_model_for_weight_conversion"
        )
    saved = fields.take("modules_to_save", list, [])
    if not all(isinstance(module, str) for module in saved):
        raise CheckpointError(f"{_NAME}: modules_to_save must be names of modules, got {quoted(saved)}")
    return fields, AdapterConfig(
        r=fields.whole("r"),
        alpha=fields.number("lora_alpha"),
        ranks=_patterns(fields, "rank_pattern", Fields.whole),
        alphas=_patterns(fields, "alpha_pattern", Fields.number),
        rank_stabilized=fields.take("use_rslora", bool, False),
        saved=saved,
    )


def _patterns(fields: Fields, field: str, take: Callable[[Fields, str], Any]) -> _Patterns:
    """Values by the names of modules, or the last parts of them, which are regular expressions."""
    values = fields.take(field, dict, {})
    for pattern in values:
        if len(pattern) > _MAX_PATTERN or len(_FORK.findall(pattern)) > _MAX_FORKS or _NESTED.search(pattern):
            raise CheckpointError(
                f"{_NAME}: {field} must have expressions of at most {_MAX_PATTERN} characters with at most "
                f"{_MAX_FORKS} of *, +, ?, {{ and |, none right after a group, got {quoted(pattern)}"
            )
    forked = sum(_FORK.search(pattern) is not None for pattern in values)
    if len(values) > _MAX_PATTERNS or forked > _MAX_FORKED:
        raise CheckpointError(
            f"{_NAME}: {field} must have at most {_MAX_PATTERNS:,} entries, and {_MAX_FORKED} with "
            f"*, +, ?, {{ or |, got {len(values):,} and {forked:,}"
        )
    entries = Fields(values, f"{_NAME}, {field}")
    try:
        # As peft matches them.
        return [(re.compile(rf"(.*\.)?({pattern})$"), take(entries, pattern)) for pattern in values]
    except (re.error, OverflowError) as error:
        raise CheckpointError(f"{_NAME}: {field} must have regular expressions: {quoted(error)}") from None


def _first(patterns: _Patterns, module: str, default: Any) -> Any:
    return next((value for pattern, value in patterns if pattern.match(module)), default)
