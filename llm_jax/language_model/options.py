"""What a command's options ask of decoding."""

from collections.abc import Callable, Sequence

from llm_jax.base.errors import UserError
from llm_jax.config.decoding import DecodingConfig
from llm_jax.config.rules import require
from llm_jax.inference.grammar import Constraint
from llm_jax.inference.request import Speculation


def acceptance_line(given: Sequence[int]) -> str:
    """Return a line on how many tokens each call of a model gave."""
    tokens, calls = sum(given), len(given)
    return (
        f"speculation: {tokens} tokens in {calls} calls of the model, {tokens / calls:.2f} a call; "
        f"{tokens - calls} proposed tokens were taken"
    )


def asked_speculation(
    options: DecodingConfig, continuations: int, on_call: Callable[[int], None]
) -> Speculation | None:
    """Return what the options ask for, with the draft loaded; None for no speculation.

    Raises:
        UserError: there is more than one continuation.
    """
    if options.speculate == 0:
        return None
    require({f"speculate must be for one continuation, got {continuations}": continuations == 1})
    from llm_jax.language_model.model import load

    return Speculation(options.speculate, None if options.draft is None else load(options.draft), on_call)


def asked_constraint(options: DecodingConfig) -> Constraint | None:
    """Return what the options ask for; None for no constraint.

    Raises:
        UserError: the schema's file cannot be read.
    """
    if options.json_schema is None:
        return Constraint(regex=options.regex) if options.regex else None
    try:
        schema = options.json_schema.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"json_schema {options.json_schema} must be a readable UTF-8 file: {error}") from None
    if not schema.strip():
        raise UserError(f"json_schema {options.json_schema} must hold a JSON schema, but is empty")
    return Constraint(json_schema=schema)
