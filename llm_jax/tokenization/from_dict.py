"""Tokenizers read back from what they say of themselves."""

import base64
from collections.abc import Mapping
from typing import Any

import numpy as np

from llm_jax.base.errors import DataError
from llm_jax.tokenization.byte_pair import RankTokenizer, named_tokenizer, trained_tokenizer
from llm_jax.tokenization.compact import CompactTokenizer
from llm_jax.tokenization.plain import ByteTokenizer, CharacterTokenizer
from llm_jax.tokenization.protocol import Tokenizer


def tokenizer_from_dict(description: Mapping[str, Any]) -> Tokenizer:
    """Return the tokenizer whose `to_dict` gave this description.

    Raises:
        DataError: it is not such a description.
    """
    try:
        kind = description["kind"]
        if kind == "bytes":
            return ByteTokenizer()
        if kind == "characters":
            return CharacterTokenizer(description["characters"])
        if kind == "bpe":
            ranks = {base64.b64decode(piece): rank for rank, piece in enumerate(description["pieces"])}
            return trained_tokenizer(ranks, description["pattern"])
        if kind == "compact":
            base = tokenizer_from_dict(description["base"])
            if not isinstance(base, RankTokenizer):
                raise ValueError(f"{base.name} cannot be cut down")
            return CompactTokenizer(base, np.array(description["kept"], np.int64), description["rare_ids"])
        if kind == "file":
            from llm_jax.tokenization.from_huggingface import FileTokenizer

            return FileTokenizer(description["content"])
        if kind in ("cl100k_base", "gpt2", "o200k_base"):
            return named_tokenizer(kind)
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise DataError(f"the tokenizer's description is damaged: {error!r}") from None
    raise DataError(f"the tokenizer's kind ({kind!r}) is not one that this version knows")
