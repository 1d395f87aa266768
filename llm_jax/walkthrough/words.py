"""The pages' sentences in each language, from languages/*.toml."""

import tomllib
from pathlib import Path
from typing import Any

LANGUAGES = ("en", "zh")
_FOLDER = Path(__file__).parent / "languages"


def read_words(language: str) -> dict[str, Any]:
    """All texts of a language as nested dicts; the same keys in every language."""
    return tomllib.loads((_FOLDER / f"{language}.toml").read_text(encoding="utf-8"))
