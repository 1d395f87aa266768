"""Our tokenizers as the content of a Hugging Face `tokenizer.json` that gives the same ids elsewhere.

A vocabulary of ranks says which pair of neighbours joins first by the id of what they become; a list of
merges says it by the two halves of each piece. Both run alike: whenever a piece comes to be inside a text,
its two halves are those into which it falls when it is made alone, since nothing crossed its borders before.
"""

from collections.abc import Mapping
from typing import Any

from llm_jax.base.errors import DataError
from llm_jax.tokenization.byte_letters import BYTE_OF_LETTER
from llm_jax.tokenization.byte_pair import RankTokenizer
from llm_jax.tokenization.compact import CompactTokenizer
from llm_jax.tokenization.from_huggingface import BYTE_PIECES, FileTokenizer
from llm_jax.tokenization.plain import ByteTokenizer, CharacterTokenizer
from llm_jax.tokenization.protocol import Tokenizer
from llm_jax.tokenization.train_bpe import PATTERN

_LETTERS = {byte: letter for letter, byte in BYTE_OF_LETTER.items()}
_CASES = "(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
# Where tiktoken's vocabularies cut words, in the words of the library `tokenizers`: there x{1,3}+ is no
# possessive quantifier, and $ is the end of a line.
CL100K_CUT = (
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s+\z|\s*[\r\n]|\s+(?!\S)|\s"
)
_CUTS = {
    "gpt2": PATTERN,
    "cl100k_base": CL100K_CUT,
    "o200k_base": rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+{_CASES}"
    rf"|[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*{_CASES}"
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
}


def tokenizer_json(tokenizer: Tokenizer) -> Mapping[str, Any]:
    """Return the content of a `tokenizer.json` with which any text has the ids that it has here.

    Other programs find special tokens in a text, where ours never does.

    Raises:
        DataError: no such content gives these ids, and why.
    """
    if isinstance(tokenizer, FileTokenizer):
        return tokenizer.to_dict()["content"]
    if isinstance(tokenizer, ByteTokenizer):
        return _byte_level({letter: byte for byte, letter in _LETTERS.items()}, [], {}, cut=None)
    if isinstance(tokenizer, CharacterTokenizer):
        return _characters(tokenizer)
    if isinstance(tokenizer, CompactTokenizer) and not tokenizer.spells:
        return _ranked(
            tokenizer.base, {base: token for token, base in enumerate(tokenizer.base_ids.tolist())}
        )
    if isinstance(tokenizer, CompactTokenizer):
        raise DataError(
            "the compact vocabulary that spells rare words takes pieces apart after it joined them, which "
            "no tokenizer.json says"
        )
    if isinstance(tokenizer, RankTokenizer):
        return _ranked(tokenizer, None)
    raise DataError(f"the tokenizer {tokenizer.name} has no tokenizer.json")


def _ranked(tokenizer: RankTokenizer, renumbered: Mapping[int, int] | None) -> dict[str, Any]:
    """The vocabulary with its own ids, or with these, which special tokens may lack."""
    description = tokenizer.to_dict()
    cut = description["pattern"] if description["kind"] == "bpe" else _CUTS[description["kind"]]
    if description["kind"] == "bpe" and cut != PATTERN:
        raise DataError("a trained vocabulary must cut words as this program does to be written elsewhere")
    ids = tokenizer.text_ids().tolist()
    spelt = {token: _spell(tokenizer.token_bytes(token)) for token in ids}
    try:
        merges = [[spelt[half] for half in tokenizer.halves(token)] for token in ids if len(spelt[token]) > 1]
    except KeyError:
        raise DataError("every piece of the vocabulary must be two others, joined; one is not") from None
    numbers = {token: token for token in ids} if renumbered is None else renumbered
    special = tokenizer.special_tokens()
    if renumbered is not None:
        special = {name: renumbered[token] for name, token in special.items() if token in renumbered}
    return _byte_level({spelt[token]: numbers[token] for token in ids}, merges, special, cut)


def _byte_level(
    vocabulary: Mapping[str, int], merges: list[list[str]], special: Mapping[str, int], cut: str | None
) -> dict[str, Any]:
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    split = {"type": "Split", "pattern": {"Regex": cut}, "behavior": "Isolated", "invert": False}
    return {
        **_EMPTY,
        "added_tokens": _added(special),
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, byte_level]} if cut else byte_level,
        "decoder": byte_level,
        "model": _bpe({**vocabulary, **special}, merges, byte_fallback=False),
    }


def _characters(tokenizer: CharacterTokenizer) -> dict[str, Any]:
    """Characters are pieces that never join; others are bytes."""
    characters = tokenizer.to_dict()["characters"]
    if "▁" in characters:
        raise DataError("a vocabulary of characters with ▁ has no tokenizer.json, where that is a space")
    vocabulary = {piece: token for token, piece in enumerate([*characters, *BYTE_PIECES])}
    decoders = [{"type": "ByteFallback"}, {"type": "Fuse"}]
    return {
        **_EMPTY,
        "decoder": {"type": "Sequence", "decoders": decoders},
        "model": _bpe(vocabulary, [], byte_fallback=True),
    }


# Every part must be there for some programs.
_EMPTY: dict[str, Any] = {
    "version": "1.0",
    "truncation": None,
    "padding": None,
    "added_tokens": [],
    "normalizer": None,
    "pre_tokenizer": None,
    "post_processor": None,
}


def _bpe(vocabulary: dict[str, int], merges: list[list[str]], *, byte_fallback: bool) -> dict[str, Any]:
    return {
        "type": "BPE",
        "dropout": None,
        "unk_token": None,
        "continuing_subword_prefix": None,
        "end_of_word_suffix": None,
        "fuse_unk": False,
        "byte_fallback": byte_fallback,
        "ignore_merges": False,
        "vocab": vocabulary,
        "merges": merges,
    }


def _added(special: Mapping[str, int]) -> list[dict[str, Any]]:
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    return [
        {"id": token, "content": content, "special": True, **flags}
        for content, token in sorted(special.items(), key=lambda item: item[1])
    ]


def _spell(piece: bytes) -> str:
    return "".join(_LETTERS[byte] for byte in piece)
