"""A text as the ids of its training and validation split, and the tokenizer that makes them."""

from collections.abc import Callable

import numpy as np

from llm_jax.config.run import DataConfig
from llm_jax.tokenization.byte_pair import RankTokenizer, named_tokenizer
from llm_jax.tokenization.compact import compact
from llm_jax.tokenization.plain import ByteTokenizer, CharacterTokenizer
from llm_jax.tokenization.protocol import Tokenizer
from llm_jax.tokenization.text_bytes import Encoded, encode_sized, own_sizes
from llm_jax.tokenization.train_bpe import train_bpe

SPLITS = ("train", "validation")


def tokenize(
    text: str, config: DataConfig, inherited: Tokenizer | None
) -> tuple[Tokenizer, dict[str, float], dict[str, Encoded]]:
    """The tokenizer, facts of its ids before compaction, and both splits.

    A ready-made tokenizer's ids are split by position; one that is trained here sees the training text alone,
    so the text is split.
    """
    share = 1 - config.validation_fraction
    if config.tokenizer in ("bpe", "characters", "bytes"):
        cut = int(len(text) * share)
        parts = (text[:cut], text[cut:])
        trained: dict[str, Callable[[], Tokenizer]] = {
            "bpe": lambda: train_bpe(parts[0], config.bpe_vocab_size),
            "characters": lambda: CharacterTokenizer(parts[0]),
            "bytes": ByteTokenizer,
        }
        tokenizer = trained[config.tokenizer]()
        splits = [encode_sized(tokenizer, part) for part in parts]
        return tokenizer, _id_facts(*(ids for ids, _ in splits)), dict(zip(SPLITS, splits, strict=True))
    base = inherited or named_tokenizer(config.tokenizer)
    ids, sizes = encode_sized(base, text)
    cut = int(len(ids) * share)
    facts = _id_facts(ids[:cut], ids[cut:])
    if not config.compact_vocab:
        splits = [Encoded(ids[:cut], sizes[:cut]), Encoded(ids[cut:], sizes[cut:])]
        return base, facts, dict(zip(SPLITS, splits, strict=True))
    assert isinstance(base, RankTokenizer)  # The configuration does not cut down an inherited one.
    tokenizer = compact(base, ids[:cut], config.compact_min_count, config.rare_ids)
    spelt = [tokenizer.from_base(part) for part in (ids[:cut], ids[cut:])]
    splits = [Encoded(part, own_sizes(tokenizer, part)) for part in spelt]
    return tokenizer, facts, dict(zip(SPLITS, splits, strict=True))


def _id_facts(train: np.ndarray, validation: np.ndarray) -> dict[str, float]:
    """Counts of a text's ids, and the share of validation ids that training lacks."""
    ids = np.concatenate([train, validation])
    return {
        "tokens": len(ids),
        "distinct_tokens": len(np.unique(ids)),
        "largest_id": int(ids.max(initial=-1)),
        "validation_tokens_never_seen": float(np.mean(~np.isin(validation, train)))
        if len(validation)
        else 0.0,
    }
