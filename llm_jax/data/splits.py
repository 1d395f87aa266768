"""A corpus as the ids of its training and validation split, and the tokenizer that makes them."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from llm_jax.base.bars import shown
from llm_jax.base.errors import UserError
from llm_jax.config.run import DataConfig
from llm_jax.tokenization.byte_pair import RankTokenizer, named_tokenizer
from llm_jax.tokenization.compact import compact
from llm_jax.tokenization.end_of_text import end_of_text
from llm_jax.tokenization.from_huggingface import FileTokenizer
from llm_jax.tokenization.plain import ByteTokenizer, CharacterTokenizer
from llm_jax.tokenization.protocol import Tokenizer, utf8
from llm_jax.tokenization.text_bytes import Encoded, encode_sized, own_sizes
from llm_jax.tokenization.train_bpe import train_bpe

SPLITS = ("train", "validation")
_TRAINED = ("bpe", "characters", "bytes")  # whose vocabulary follows from the text, or is the bytes


class Tokenized(NamedTuple):
    """A corpus as ids."""

    tokenizer: Tokenizer
    facts: dict[str, float]  # of its ids before compaction
    splits: dict[str, Encoded]  # by SPLITS
    raw: bytes  # what the ids of both stand for


def tokenize(
    documents: Sequence[str], config: DataConfig, inherited: Tokenizer | None, *, apart: bool
) -> Tokenized:
    """Return both splits, and the tokenizer that gives their ids.

    A ready-made tokenizer's ids are split by position; one that is trained here sees the training text alone,
    so the text is split.

    Args:
        documents: the corpus.
        config: how it is cut into tokens and splits.
        inherited: the tokenizer, where the configuration says that.
        apart: whether the tokenizer's end-of-text token, which stands for no byte, is put between documents;
            else they are joined by line ends.
    """
    share = 1 - config.validation_fraction
    text = ("" if apart else "\n").join(documents)
    if config.tokenizer in _TRAINED:
        cut = int(len(text) * share)
        parts = (text[:cut], text[cut:])
        trained: dict[str, Callable[[], Tokenizer]] = {
            "bpe": lambda: train_bpe(parts[0], config.bpe_vocab_size),
            "characters": lambda: CharacterTokenizer(parts[0]),
            "bytes": ByteTokenizer,
        }
        tokenizer = trained[config.tokenizer]()
        splits = [encode_sized(tokenizer, part) for part in parts]
        return _tokenized(tokenizer, id_facts(*(ids for ids, _ in splits)), splits, text)
    base = inherited or named_tokenizer(config.tokenizer)
    end = end_of_text(base) if apart else None
    ids, sizes = encode_sized(base, text) if end is None else _encode_apart(base, documents, end.id)
    cut = int(len(ids) * share)
    facts = id_facts(ids[:cut], ids[cut:])
    if not config.compact_vocab:
        splits = [Encoded(ids[:cut], sizes[:cut]), Encoded(ids[cut:], sizes[cut:])]
        return _tokenized(base, facts, splits, text)
    assert isinstance(base, RankTokenizer)  # The configuration does not cut down an inherited one.
    always = () if end is None else (end.id,)
    tokenizer = compact(base, ids[:cut], config.compact_min_count, config.rare_ids, always)
    spelt = [tokenizer.from_base(part) for part in (ids[:cut], ids[cut:])]
    splits = [Encoded(part, own_sizes(tokenizer, part)) for part in spelt]
    return _tokenized(tokenizer, facts, splits, text)


def are_apart(config: DataConfig, inherited: Tokenizer | None, *, of_records: bool) -> bool:
    """Return whether documents have an end-of-text token between them.

    Args:
        config: whether that is asked for.
        inherited: the tokenizer, where the configuration says that.
        of_records: whether they are those of records, where "auto" asks for it if the tokenizer has one.

    Raises:
        UserError: it is asked for, and the tokenizer has none.
    """
    wanted = config.document_separator
    if wanted == "newline" or (wanted == "auto" and not of_records):
        return False
    has_one = (
        config.tokenizer not in _TRAINED
        and end_of_text(inherited or named_tokenizer(config.tokenizer)) is not None
    )
    if wanted == "token" and not has_one:
        raise UserError(
            f"document_separator = token needs a tokenizer with an end-of-text token, and {config.tokenizer} "
            "has none; use cl100k_base, or document_separator = newline"
        )
    return has_one


def _encode_apart(tokenizer: Tokenizer, documents: Sequence[str], end: int) -> Encoded:
    """All documents' ids with the end token between them."""
    between = np.array([end], np.int32), np.zeros(1, np.int64)
    ids, sizes = [], []
    with shown("cutting the texts into tokens", sum(map(len, documents))) as told:
        for document in documents:
            if isinstance(tokenizer, FileTokenizer):
                found = encode_sized(tokenizer, document)
                sizes += [found.sizes, between[1]]
                ids += [found.ids, between[0]]
            else:
                ids += [tokenizer.encode(document), between[0]]
            told(len(document))
    joined = np.concatenate(ids[:-1])
    return Encoded(joined, np.concatenate(sizes[:-1]) if sizes else own_sizes(tokenizer, joined))


def _tokenized(
    tokenizer: Tokenizer, facts: dict[str, float], splits: Sequence[Encoded], text: str
) -> Tokenized:
    return Tokenized(tokenizer, facts, dict(zip(SPLITS, splits, strict=True)), utf8(text))


def id_facts(train: np.ndarray, validation: np.ndarray) -> dict[str, float]:
    """Return counts of a text's ids, and the share of validation ids that training lacks."""
    ids = np.concatenate([train, validation])
    return {
        "tokens": len(ids),
        "distinct_tokens": len(np.unique(ids)),
        "largest_id": int(ids.max(initial=-1)),
        "validation_tokens_never_seen": float(np.mean(~np.isin(validation, train)))
        if len(validation)
        else 0.0,
    }
