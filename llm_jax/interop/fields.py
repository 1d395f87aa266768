"""Another program's configuration: every field is taken, or known to change nothing, or refused by name."""

from collections.abc import Callable, Mapping, Set
from typing import Any

from llm_jax.errors import CheckpointError
from llm_jax.interop.sources import quoted

# Fields about training, generation or the file itself: logits do not depend on them.
_NOT_THE_MODEL = {
    *("_name_or_path", "architectures", "transformers_version", "model_type", "torch_dtype", "dtype"),
    *("bos_token_id", "eos_token_id", "pad_token_id", "use_cache", "initializer_range", "pretraining_tp"),
    *("attention_dropout", "attn_pdrop", "embd_pdrop", "resid_pdrop", "cache_implementation"),
    *("output_attentions", "output_hidden_states", "return_dict"),
    *("summary_activation", "summary_first_dropout", "summary_proj_to_labels", "summary_type"),
    *("summary_use_proj", "task_specific_params", "n_ctx"),
    *("output_router_logits", "router_aux_loss_coef", "router_jitter_noise"),
}
_MOST = 2**31 - 1
_LEAST = 1e-30


class Fields:
    """The fields that nothing has asked for yet; `finish` refuses what is left."""

    def __init__(self, values: Mapping[str, Any], name: str):
        self._left = dict(values)
        self._name = name

    def __contains__(self, field: str) -> bool:
        return field in self._left

    def take(self, field: str, kind: type, default: Any = ...) -> Any:
        """The value of a field, which must be of this type; a missing one (or null) is the default."""
        return self._take(field, kind.__name__, lambda value: type(value) is kind, default)

    def whole(self, field: str, default: int | None = None) -> int:
        """A whole number from 1 on, likewise."""
        wanted = f"a whole number from 1 to {_MOST:,}"
        fits = lambda value: type(value) is int and 0 < value <= _MOST  # noqa: E731
        return self._take(field, wanted, fits, ... if default is None else default)

    def number(self, field: str, default: float | None = None) -> float:
        """A number above 0, likewise."""
        fits = lambda value: type(value) in (int, float) and _LEAST < value < 1 / _LEAST  # noqa: E731
        wanted = f"a number from {_LEAST} to {1 / _LEAST}"
        return float(self._take(field, wanted, fits, ... if default is None else default))

    def _take(self, field: str, wanted: str, fits: Callable[[Any], bool], default: Any) -> Any:
        value = self._left.pop(field, None)
        if value is None and default is not ...:
            return default
        if not fits(value):
            raise CheckpointError(f"{self._name}: {field} must be {wanted}, got {quoted(value)}")
        return value

    def require(self, field: str, *allowed: Any) -> None:
        """Refuses any value but these; a missing field is as good as the first of them."""
        value = self._left.pop(field, allowed[0])
        if value not in allowed:
            raise CheckpointError(f"{self._name}: {field} must be {allowed[0]!r} here, got {quoted(value)}")

    def finish(self, silent: Set[str] = _NOT_THE_MODEL) -> None:
        """Raises CheckpointError for fields that were not taken and may change what the model computes.

        Args:
            silent: fields that may be left, as they change nothing.
        """
        if left := sorted(set(self._left) - silent):
            raise CheckpointError(
                f"{self._name} has fields that this program does not know: {', '.join(left)}"
            )
