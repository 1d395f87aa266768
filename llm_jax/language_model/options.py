"""What a command's options ask of decoding."""

from collections.abc import Callable, Sequence

from llm_jax.base.errors import UserError
from llm_jax.config.decoding import SteeringConfig
from llm_jax.config.rules import require
from llm_jax.inference.grammar import Constraint
from llm_jax.language_model.decoding import Speculation


def told(given: Sequence[int]) -> str:
    """A line on how many tokens each call of a model gave."""
    tokens, calls = sum(given), len(given)
    return (
        f"speculation: {tokens} tokens in {calls} calls of the model, {tokens / calls:.2f} a call; "
        f"{tokens - calls} proposed tokens were taken"
    )


def asked_speculation(
    steering: SteeringConfig, continuations: int, heard: Callable[[int], None]
) -> Speculation | None:
    """What the options ask for, with the draft loaded; None for no speculation.

    Raises:
        UserError: there is more than one continuation.
    """
    if steering.speculate == 0:
        return None
    require({f"speculate must be for one continuation, got {continuations}": continuations == 1})
    from llm_jax.language_model.model import load

    return Speculation(steering.speculate, None if steering.draft is None else load(steering.draft), heard)


def asked_constraint(steering: SteeringConfig) -> Constraint | None:
    """What the options ask for; None for no constraint.

    Raises:
        UserError: the schema's file cannot be read.
    """
    if steering.json_schema is None:
        return Constraint(regex=steering.regex) if steering.regex else None
    try:
        schema = steering.json_schema.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"json_schema {steering.json_schema} must be a readable UTF-8 file: {error}"
        ) from None
    if not schema.strip():
        raise UserError(f"json_schema {steering.json_schema} must hold a JSON schema, but is empty")
    return Constraint(json_schema=schema)
