"""A store by what is in it: the tokens of a text are found when the text itself is gone, or has changed."""

import json
from pathlib import Path

from llm_jax.base.errors import DataError
from llm_jax.data.store import Store, fingerprint_of, open_store


def find_store(prepared: Path, tokenizer: str, fingerprint: str) -> Store | None:
    """Return the undamaged store with this fingerprint of tokenizer and tokens; None where there is none.

    Args:
        prepared: folder of token stores.
        tokenizer: as the configuration calls it.
        fingerprint: of the store that a run was trained on.
    """
    for path in sorted(prepared.glob(f"*-{tokenizer}-*")):
        try:
            # Not every file of every store is read to find out which one it is.
            manifest = json.loads((path / "manifest.json").read_text(encoding="utf-8"))
            if fingerprint_of(manifest) == fingerprint:
                return open_store(path)
        except (OSError, ValueError, KeyError, TypeError, DataError):
            continue
    return None
