"""Another program's configuration: every field is taken, or passed over as it changes nothing, or refused by
name.
"""

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

from llm_jax.base.errors import CheckpointError, UserError
from llm_jax.interop.source import quoted

# Fields about training, generation or the file itself: logits do not depend on them.
_NOT_THE_MODEL = {
    *("_name_or_path", "_commit_hash", "architectures", "auto_map", "transformers_version"),
    *("torch_dtype", "dtype", "use_bfloat16", "torchscript", "tf_legacy_loss", "transformers.js_config"),
    *("attn_implementation", "_attn_implementation", "_attn_implementation_autoset", "_flash_attn_2_enabled"),
    *("bos_token_id", "eos_token_id", "pad_token_id", "sep_token_id", "decoder_start_token_id", "prefix"),
    *("use_cache", "cache_implementation", "gradient_checkpointing", "pretraining_tp", "initializer_range"),
    *("output_attentions", "output_hidden_states", "return_dict", "use_return_dict", "tokenizer_class"),
    *("is_decoder", "is_llama_config", "n_ctx", "chunk_size_feed_forward", "keys_to_ignore_at_inference"),
    *(
        "output_router_logits",
        "router_aux_loss_coef",
        "router_jitter_noise",
        "neftune_noise_alpha",
        "type_vocab_size",
    ),
    # Of heads that classify.
    *("_num_labels", "num_labels", "id2label", "label2id", "problem_type", "finetuning_task"),
    *("summary_activation", "summary_proj_to_labels", "summary_type", "summary_use_proj"),
    # Of generation, which older files keep here.
    *("max_length", "max_new_tokens", "min_length", "do_sample", "early_stopping", "task_specific_params"),
    *("num_beams", "num_beam_groups", "num_return_sequences", "diversity_penalty", "length_penalty"),
    *("temperature", "top_k", "top_p", "typical_p", "repetition_penalty", "no_repeat_ngram_size"),
    *("encoder_no_repeat_ngram_size", "bad_words_ids", "forced_bos_token_id", "forced_eos_token_id"),
    *("exponential_decay_length_penalty", "suppress_tokens", "begin_suppress_tokens"),
    *("output_scores", "return_dict_in_generate", "remove_invalid_values"),
}
_NOISE = re.compile(r"unsloth_\w+|\w*dropout(_prob)?|\w+_pdrop")  # of training; we run without
_MOST = 2**31 - 1
_LEAST = 1e-30


class Fields:
    """The fields of a file, and which of them nothing has asked for yet.

    Args:
        values: the fields.
        name: the file's, for messages.
        defaults: what fields mean that the file has not got.
    """

    def __init__(self, values: Mapping[str, Any], name: str, defaults: Mapping[str, Any] | None = None):
        self.name = name
        self._left = dict(values)
        self._defaults = defaults or {}
        self._names = set(values)
        self._within: dict[str, Fields] = {}

    def __contains__(self, field: str) -> bool:
        return field in self._left

    def within(self, field: str, values: Mapping[str, Any]) -> "Fields":
        """Return the fields of an object that a field holds; those that nothing asks for are left in this
        file.
        """
        self._within[field] = Fields(values, f"{self.name}, {field}")
        return self._within[field]

    def take(self, field: str, kind: type, null: Any = ...) -> Any:
        """Return the value of a field, which must be of this type. A missing one is the default, and where
        there is none, as good as null; null stands for the given value.
        """
        return self._take(field, kind.__name__, lambda value: type(value) is kind, null)

    def whole(self, field: str, null: int | None = None) -> int:
        """Return a whole number from 1 on, likewise."""
        wanted = f"a whole number from 1 to {_MOST:,}"
        fits = lambda value: type(value) is int and 0 < value <= _MOST  # noqa: E731
        return self._take(field, wanted, fits, ... if null is None else null)

    def number(self, field: str, null: float | None = None) -> float:
        """Return a number above 0, likewise."""
        fits = lambda value: type(value) in (int, float) and _LEAST < value < 1 / _LEAST  # noqa: E731
        wanted = f"a number from {_LEAST} to {1 / _LEAST}"
        return float(self._take(field, wanted, fits, ... if null is None else null))

    def _take(self, field: str, wanted: str, fits: Callable[[Any], bool], null: Any) -> Any:
        value = self._left.pop(field, self._defaults.get(field))
        if value is None and null is not ...:
            return null
        if not fits(value):
            raise CheckpointError(f"{self.name}: {field} must be {wanted}, got {quoted(value)}")
        return value

    def require(self, field: str, *allowed: Any) -> None:
        """Refuse any value but these; a missing field is as good as the first of them."""
        value = self._left.pop(field, allowed[0])
        if value not in allowed:
            raise CheckpointError(f"{self.name}: {field} must be {allowed[0]!r} here, got {quoted(value)}")

    def repeats(self, field: str, *values: Any) -> None:
        """Pass over a field that says again what another said; with other values it is left as it is."""
        if field in self._left and self._left[field] in values:
            self._left[field] = None

    def unread(self, *fields: str) -> None:
        """Pass over fields that the family's own program does not read, whatever they say."""
        for field in fields:
            if field in self._left:
                self._left[field] = None

    def spare(self, *fields: str) -> None:
        """Leave fields to other parts of the program."""
        for field in fields:
            self._left.pop(field, None)

    def uses(self, field: str) -> bool:
        """Return whether a field is in the file and something has asked for it."""
        return field in self.names() and field not in self.left()

    def names(self) -> set[str]:
        """Return all fields; those of objects are called "rope_scaling.factor"."""
        inner = {f"{field}.{name}" for field, fields in self._within.items() for name in fields.names()}
        return self._names | inner

    def left(self) -> dict[str, Any]:
        """Return what nothing has asked for, likewise."""
        inner = {
            f"{field}.{name}": value
            for field, fields in self._within.items()
            for name, value in fields.left().items()
        }
        return self._left | inner

    def finish(self, ignored: Collection[str] = (), silent: Collection[str] = _NOT_THE_MODEL) -> None:
        """Raise CheckpointError for fields that were not taken and may change what the model computes.

        Args:
            ignored: fields that the user wants to be passed over.
            silent: fields that may be left, as they change nothing.
        """
        odd = sorted(
            name
            for name, value in self.left().items()
            if name not in silent
            and name not in ignored
            and not _NOISE.fullmatch(name)
            and not _is_off(value)
        )
        if odd:
            raise CheckpointError(
                f"{self.name} has fields that this program does not know: {', '.join(map(_shown, odd[:9]))}; "
                f"if logits do not depend on them, pass them over: --ignore_field {_shown(odd[0])}"
            )


def _is_off(value: Any) -> bool:
    """Whether a field says nothing, or that there is none of what it names."""
    return value is None or value is False or (isinstance(value, str | list | dict) and not value)


def _shown(name: str) -> str:
    return name if re.fullmatch(r"[\w.-]{1,80}", name) else quoted(name)


def require_ignorable(ignored: Iterable[str], files: Collection[Fields]) -> None:
    """Raise UserError for a field to be passed over that a file uses, or that none of them has."""
    for field in ignored:
        if using := next((file.name for file in files if file.uses(field)), None):
            raise UserError(f"--ignore_field {field} must be a field that is not used, but {using} needs it")
        if not any(field in file.names() for file in files):
            where = " or ".join(file.name for file in files)
            raise UserError(f"--ignore_field {field} must be a field of {where or 'a config.json'}")


def passed_over(files: Iterable[Fields]) -> str:
    """Return one line with the fields of each file that nothing asked for; empty where there are none."""
    found = [
        f"{file.name}: {', '.join(sorted(map(_shown, left)))}" for file in files if (left := file.left())
    ]
    return f"passed over, as logits do not depend on them: {'; '.join(found)}" if found else ""
