"""What is done to a text before it is cut into tokens."""

import dataclasses
import re
from typing import Literal

from llm_jax.config.rules import require


@dataclasses.dataclass(frozen=True, kw_only=True)
class CleaningConfig:
    """Steps that change a text, in the order in which they are done; by default none."""

    html: bool = False
    """Take the text out of HTML: no tags, scripts or styles; entities as letters."""
    unicode: Literal["none", "NFC", "NFKC"] = "none"
    """Unicode normalisation; NFKC also writes ligatures and wide letters as plain ones."""
    control_characters: bool = False
    """Remove control characters but tabs and line ends, and invisible ones such as byte-order marks."""
    boilerplate: bool = False
    """Remove HTML's menus, headers and footers, and lines that three documents and a tenth of all have."""
    languages: str = ""
    """Keep only documents in these languages, as ISO codes with commas between: en,zh; empty: all."""
    mask_contacts: bool = False
    """Write <email> and <phone> in place of e-mail addresses and phone numbers."""

    def __post_init__(self) -> None:
        codes = self.languages.split(",") if self.languages else []
        are_codes = all(re.fullmatch("[a-z]{2,3}", code.strip()) for code in codes)
        said = f"languages ({self.languages!r:.80}) must be ISO codes with commas between, as in en,zh"
        require({said: are_codes})

    @property
    def wanted_languages(self) -> frozenset[str]:
        """Codes of the languages that are kept; empty: all."""
        return frozenset(code.strip() for code in self.languages.split(",") if code.strip())
