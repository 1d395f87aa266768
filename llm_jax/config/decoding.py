"""Settings of how text is made."""

import dataclasses
import math
from pathlib import Path

from llm_jax.config.rules import Whole, at_least, require


@dataclasses.dataclass(frozen=True, kw_only=True)
class DecodingConfig:
    """Several tokens a call of the model, or only such as a pattern allows."""

    speculate: Whole = 0
    """Tokens proposed at a time and scored in one call, for text of the same distribution; 0: off."""
    draft: Path | None = None
    """Directory of a smaller model with the same tokenizer, to propose; without one, earlier text does."""
    regex: str = ""
    """What the continuation must match from end to end (Rust's syntax), unless max_new_tokens cut it off."""
    json_schema: Path | None = None
    """File with a JSON schema; the continuation is JSON that it describes, in one line."""

    def __post_init__(self) -> None:
        speculates, schema = self.speculate > 0, self.json_schema is not None
        require(
            at_least(self, 0, "speculate")
            | {
                "draft needs speculate, how many tokens it proposes at a time": speculates or not self.draft,
                "regex and json_schema do not go together": not (self.regex and schema),
                "speculate does not go together with regex or json_schema": not speculates
                or not (self.regex or schema),
            }
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class SamplingConfig:
    """How the next token is chosen; penalty, temperature and filters apply in the order of the fields."""

    repetition_penalty: float = 1.0
    """Divides positive, multiplies negative logits of tokens already there (Keskar et al. 2019); 1: off."""
    temperature: float = 0.8
    """Divides the logits: below 1 is safer, above is wilder; 0 always takes the likeliest token (greedy)."""
    top_k: Whole = 0
    """Keeps the k likeliest tokens; 0 keeps all."""
    top_p: float = 0.9
    """Keeps the fewest likeliest tokens with this probability together (Holtzman et al. 2019); 1: all."""
    min_p: float = 0.0
    """Keeps tokens with at least this share of the likeliest one's probability (Nguyen et al. 2024)."""

    def __post_init__(self) -> None:
        require(
            at_least(self, 0, "temperature", "top_k")
            | {
                f"repetition_penalty ({self.repetition_penalty}) must be positive": 0
                < self.repetition_penalty
                < math.inf,
                f"top_p ({self.top_p}) must be above 0 and at most 1": 0 < self.top_p <= 1,
                f"min_p ({self.min_p}) must be from 0 to 1": 0 <= self.min_p <= 1,
            }
        )
