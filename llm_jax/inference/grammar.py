"""Which tokens may come next so that a text matches a regular expression or a JSON schema, by llguidance.

A tokenizer comes in as the bytes of its tokens, so every one will do. V vocabulary.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from llm_jax.base.errors import UserError
from llm_jax.config.rules import require
from llm_jax.tokenization.protocol import Tokenizer

# JSON as it is mostly written. Free white space would let a model write nothing but that.
_JSON_STYLE = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}


@dataclass(frozen=True)
class Constraint:
    """What a continuation must be: a match of a whole regular expression, or JSON that a schema describes.

    Args:
        regex: as in Rust's crate regex: no look-around and no back-references, and `.` is no newline.
        json_schema: the schema's JSON text. Values come in one line, with ", " and ": " between them, and an
            object's properties in the schema's order.
    """

    regex: str = ""
    json_schema: str = ""

    def __post_init__(self) -> None:
        given = bool(self.regex) + bool(self.json_schema)
        require({f"a constraint must be one of regex and json_schema, got {given} of them": given == 1})


class Vocabulary:
    """A tokenizer's tokens as llguidance reads them, made once for all texts.

    Args:
        tokenizer: whose bytes count; a token without bytes is never allowed.
        vocab_size: the model's V, of which ids beyond the tokenizer's are never allowed.

    Raises:
        UserError: the package llguidance is missing.
    """

    def __init__(self, tokenizer: Tokenizer, vocab_size: int):
        try:
            import llguidance  # pyright: ignore[reportMissingImports] - optional
        except ImportError:
            need = "constraints (regex, json_schema) need the package llguidance"
            raise UserError(f'{need}: pip install "llm-jax[constrained]"') from None
        spelt = min(tokenizer.vocab_size, vocab_size)
        words = [_text(tokenizer.token_bytes(token)) for token in range(spelt)] + [b""] * (vocab_size - spelt)
        self.library = llguidance
        self.tokens = llguidance.LLTokenizer(llguidance.TokenizerWrapper(_Words(tokenizer, words)))
        self.spelt_V = np.array([bool(word) for word in words])


class _Words:
    """What llguidance asks of a tokenizer."""

    def __init__(self, tokenizer: Tokenizer, words: list[bytes]):
        # One id more, which no model draws, is the end of a text, since many vocabularies have none.
        self.tokens = [*words, b"<end>"]
        self.eos_token_id = len(words)
        self.bos_token_id = None
        self.special_token_ids = [len(words)]
        self._tokenizer = tokenizer

    def __call__(self, text: bytes) -> list[int]:
        return self._tokenizer.encode(text.decode()).tolist()


def _text(piece: bytes) -> bytes:
    """The bytes of a token, or none if they are in no UTF-8 text: llguidance marks its own tokens by 0xFF."""
    return b"" if b"\xff" in piece else piece


def _grammar(library: Any, constraint: Constraint) -> str:
    """The constraint in llguidance's language.

    Without `no_forcing` only the tokenizer's own spelling of what must follow would be allowed, and not every
    token that begins it.
    """
    if constraint.regex:
        rule = f"/{library.regex_to_lark(constraint.regex)}/"
    else:
        try:
            schema = json.loads(constraint.json_schema)
        except ValueError as error:
            raise UserError(f"json_schema must be JSON, but is not: {error}") from None
        if not isinstance(schema, dict):
            raise UserError(f"json_schema must be a JSON object, got {constraint.json_schema.strip()!r:.80}")
        rule = f"%json {json.dumps(schema | {'x-guidance': _JSON_STYLE})}"
    return f'%llguidance {{"no_forcing": true}}\nstart: {rule}'


def _reason(message: str) -> str:
    """Why, in a line, without the grammar that was made of the user's words."""
    lines = message.splitlines() or [""]
    return next((line for line in lines if line.startswith("error: ")), lines[0])[:200]


class GrammarMasks:
    """Follows one text, and says which tokens may come next.

    Args:
        vocabulary: the tokens.
        constraint: what the text must be.
        end_tokens: ids that end a text, allowed where it is complete.

    Raises:
        UserError: the constraint is none that can be followed.
    """

    def __init__(self, vocabulary: Vocabulary, constraint: Constraint, end_tokens: Sequence[int] = ()):
        self._vocabulary, self._end_tokens = vocabulary, list(end_tokens)
        self._matcher = vocabulary.library.LLMatcher(
            vocabulary.tokens, _grammar(vocabulary.library, constraint), log_level=0
        )
        self._ended = False
        if self._matcher.is_error():
            kind = "regex" if constraint.regex else "json_schema"
            raise UserError(f"{kind} cannot be followed: {_reason(self._matcher.get_error())}")

    @property
    def finished(self) -> bool:
        return self._ended or self._matcher.is_stopped()

    def allowed(self) -> np.ndarray:
        bits = np.frombuffer(self._matcher.compute_bitmask(), np.uint8)
        spelt_V = self._vocabulary.spelt_V
        if self._matcher.is_error() and "NoExtension" in self._matcher.get_error():  # no token goes on
            return np.zeros_like(spelt_V)
        self._check()
        allowed_V = np.unpackbits(bits, bitorder="little")[: len(spelt_V)].astype(bool) & spelt_V
        allowed_V[self._end_tokens] = self._matcher.is_accepting()
        return allowed_V

    def take(self, token: int) -> None:
        if token in self._end_tokens:
            self._ended = True
            return
        self._matcher.consume_token(token)
        self._check()

    def _check(self) -> None:
        if self._matcher.is_error():
            raise UserError(f"the constraint became too much to follow: {_reason(self._matcher.get_error())}")
