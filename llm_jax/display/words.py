"""The pages' sentences in each language, from the languages/*.toml of the room that says them."""

import tomllib
from pathlib import Path
from typing import Any, Literal, get_args

Language = Literal["en", "zh"]
LANGUAGES: tuple[Language, ...] = get_args(Language)
_ROOMS = Path(__file__).parents[1]


def read_words(room: str, language: Language) -> dict[str, Any]:
    """Return all texts of a room's pages as nested dicts; the same keys in every language."""
    return tomllib.loads((_ROOMS / room / "languages" / f"{language}.toml").read_text(encoding="utf-8"))
