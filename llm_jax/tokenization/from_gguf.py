"""A GGUF file's tokenizer as the content of a `tokenizer.json`, which `file_tokenizer` runs.

Two kinds are taken: byte-level BPE ("gpt2") and SentencePiece's BPE ("llama"). Of the first, the file names
how text is cut into words (`tokenizer.ggml.pre`) without saying it; what each name means is in the table
here, after llama.cpp (https://github.com/ggml-org/llama.cpp, src/llama-vocab.cpp).
"""

from collections.abc import Mapping
from math import isfinite
from typing import Any

from llm_jax.base.errors import DataError
from llm_jax.tokenization.start_tokens import Named, with_tokens_around
from llm_jax.tokenization.train_bpe import PATTERN

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6


def _by_line(digits: str) -> str:
    """Words with any one sign before them, numbers, signs with the ends of lines after them, white space."""
    endings = r"'(?:[sS]|[tT]|[rR][eE]|[vV][eE]|[mM]|[lL][lL]|[dD])"
    words = rf"[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|{digits}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*"
    return rf"{endings}|{words}|\s*[\r\n]+|\s+(?!\S)|\s+"


def _by_case(digits: str, endings: str) -> str:
    """Words that begin a new one where a capital stands after small letters."""
    first, rest = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
    words = "|".join(
        rf"[^\r\n\p{{L}}\p{{N}}]?{letters}{endings}" for letters in (f"{first}*{rest}+", f"{first}+{rest}*")
    )
    return rf"{words}|{digits}| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"


_ENDINGS = r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])?"
_HAN = "\u4e00-\u9fa5"
# Expressions that cut one after the other: each cuts the pieces of the one before it. Where llama.cpp only
# comes near to what a model's own file says ("tekken", "gpt-4o": marks on letters), it is as the file says.
CUTS = {
    "gpt-2": [PATTERN],
    "smollm": [r"\p{N}", PATTERN],
    "llama-bpe": [_by_line(r"\p{N}{1,3}")],
    "dbrx": [_by_line(r"\p{N}{1,3}")],
    "qwen2": [_by_line(r"\p{N}")],
    "minicpm5": [r"\p{N}{1,3}", _by_line(r"\p{N}+")],
    "tekken": [_by_case(r"\p{N}", "")],
    "gpt-4o": [_by_case(r"\p{N}{1,3}", _ENDINGS)],
    "falcon": [r"[\p{P}$+<=>^~|`]+", PATTERN, "[0-9][0-9][0-9]"],
    "deepseek-coder": [
        *(r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+"),
        f"[{_HAN}\u0800-\u4e00\uac00-\ud7ff]+",
        r"\p{N}",
    ],
    "deepseek-v3": [
        r"\p{N}{1,3}",
        f"[{_HAN}\u3040-\u309f\u30a0-\u30ff]+",
        r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"""
        r"| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    ],
    "default": [r"[\p{P}$+<=>^~|]+", PATTERN, r"\p{N}+", "[0-9][0-9][0-9]"],
}
# Other names of the same rules.
_SAME = {
    "gpt-2": "phi-2 jina-es jina-de jina-v2-es jina-v2-de gigachat a.x-4.0 mellum modern-bert exaone4 mpt "
    "olmo jais trillion granite-docling",
    "smollm": "starcoder refact command-r codeshell exaone minerva-7b mellum2",
    "llama-bpe": "llama3 llama-v3 falcon3 falcon-h1 pixtral midm-2.0 lfm2 jina-v5-nano",
    "dbrx": "smaug-bpe glm4 chatglm-bpe",
    "qwen2": "deepseek-r1-qwen kormo f2llmv2 megrez stablelm2 hunyuan solar-open grok-2",
    "gpt-4o": "llama4 kanana2 talkie minimax-m2",
    "deepseek-v3": "hunyuan-dense joyai-llm hy_v4",
}
RULES = {name: name for name in CUTS} | {other: name for name in _SAME for other in _SAME[name].split()}
# Far longer than any piece of a real model; what a piece costs grows with its square.
LONGEST = 1000
# A byte's name that is written in a text must not become that byte.
_APART = {
    "type": "Split",
    "pattern": {"Regex": "<(?=0x[0-9A-F]{2}>)"},
    "behavior": "MergedWithPrevious",
    "invert": False,
}
# Words that are in the vocabulary stay whole, whatever the merges say.
WHOLE_WORDS = {"llama-bpe", "minicpm5", "tekken"}
# What llama.cpp does where a file says neither whether a token stands before every text nor which.
_BEGINS = {"llama3", "llama-v3", "llama-bpe", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2"}
_BEGINS |= {"jina-v5-nano", "tekken", "chameleon"}
_FIRST_AND_LAST = {"llama": (1, 2), "gpt2": (11, 11)}


def gguf_tokenizer_json(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Return the content of the `tokenizer.json` that gives the ids which llama.cpp gives for a GGUF file.

    Args:
        metadata: the file's keys and values; those that begin with `tokenizer.ggml.` are read.

    Raises:
        DataError: a value is missing or damaged, or the tokenizer is not one of those that are known here.
    """
    model = metadata.get("tokenizer.ggml.model")
    if model not in ("gpt2", "llama"):
        raise DataError(f"tokenizer.ggml.model must be 'gpt2' or 'llama', got {model!r:.80}")
    tokens, kinds = _list(metadata, "tokens", str), _list(metadata, "token_type", int)
    if len(kinds) != len(tokens):
        raise DataError(f"tokenizer.ggml.token_type has {len(kinds)} values for {len(tokens)} tokens")
    if len(set(tokens)) < len(tokens):
        raise DataError(f"tokenizer.ggml.tokens has {len(tokens) - len(set(tokens))} tokens twice")
    if model == "gpt2":
        added = _added_tokens(tokens, kinds, (NORMAL,))
        content = {"version": "1.0", "added_tokens": added, **_byte_level_bpe(metadata, tokens)}
    else:
        scores, prefix = _list(metadata, "scores", float), _switch(metadata, "add_space_prefix", True)
        content = sentencepiece_json(tokens, kinds, scores, prefix=prefix)
    begins = model == "llama" or metadata.get("tokenizer.ggml.pre") in _BEGINS
    start, end = (
        [_around(metadata, tokens, side, default)] if _switch(metadata, f"add_{side}_token", on) else []
        for side, on, default in zip(("bos", "eos"), (begins, False), _FIRST_AND_LAST[model], strict=True)
    )
    return with_tokens_around(content, start, end)


def without_pre(metadata: Mapping[str, Any]) -> str | None:
    """Return what is to be said of a file that does not say how text is cut."""
    if metadata.get("tokenizer.ggml.model") != "gpt2" or metadata.get("tokenizer.ggml.pre"):
        return None
    return (
        "tokenizer.ggml.pre is missing, so text is cut as llama.cpp does by default, and hardly as in "
        "training; give --tokenizer with the model's tokenizer.json"
    )


def sentencepiece_json(
    pieces: list[str], kinds: list[int], scores: list[float], *, prefix: bool, unigram: bool = False
) -> dict[str, Any]:
    """Return the content of a `tokenizer.json` that does as SentencePiece's BPE or Unigram, with byte
    fallback.

    Args:
        pieces: by their ids.
        kinds: `NORMAL` and so on, of each.
        scores: of each.
        prefix: whether a space is put before a text.
        unigram: by the likeliest pieces, where BPE joins neighbours.

    Raises:
        DataError: the scores leave open what is done.
    """
    if len(scores) != len(pieces):
        raise DataError(f"there must be a score for each piece, got {len(scores)} values for {len(pieces)}")
    before = [{"type": "Prepend", "prepend": "▁"}] if prefix else []
    spaces = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}
    words = {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}
    strip = [{"type": "Strip", "content": " ", "start": 1, "stop": 0}] if prefix else []
    decoders = [words, {"type": "ByteFallback"}, {"type": "Fuse"}, *strip]
    return {
        "version": "1.0",
        "added_tokens": _added_tokens(pieces, kinds, (NORMAL, BYTE)),
        "normalizer": {"type": "Sequence", "normalizers": [*before, spaces]},
        **({"pre_tokenizer": _APART} if unigram else {}),
        "decoder": {"type": "Sequence", "decoders": decoders},
        "model": (_unigram if unigram else _scored_bpe)(pieces, kinds, scores),
    }


def _unigram(pieces: list[str], kinds: list[int], scores: list[float]) -> dict[str, Any]:
    if UNKNOWN not in kinds or not all(map(isfinite, scores)):
        raise DataError("pieces of Unigram must have finite scores, and one must be the unknown one")
    vocab = [list(pair) for pair in zip(pieces, scores, strict=True)]
    return {"type": "Unigram", "unk_id": kinds.index(UNKNOWN), "vocab": vocab, "byte_fallback": True}


def _around(metadata: Mapping[str, Any], tokens: list[str], side: str, default: int) -> Named:
    """The token before ("bos") or after ("eos") every text."""
    token = metadata.get(f"tokenizer.ggml.{side}_token_id", default)
    if type(token) is not int or not 0 <= token < len(tokens):
        raise DataError(
            f"tokenizer.ggml.{side}_token_id must be a whole number from 0 to {len(tokens) - 1:,}, "
            f"got {token!r:.80}"
        )
    return Named(tokens[token], token)


def _switch(metadata: Mapping[str, Any], name: str, default: bool) -> bool:
    value = metadata.get(f"tokenizer.ggml.{name}", default)
    if not isinstance(value, bool):
        raise DataError(f"tokenizer.ggml.{name} must be true or false, got {value!r:.80}")
    return value


def _byte_level_bpe(metadata: Mapping[str, Any], tokens: list[str]) -> dict[str, Any]:
    named = metadata.get("tokenizer.ggml.pre") or "default"  # as in llama.cpp
    pre = RULES.get(named) if isinstance(named, str) else None
    if pre is None:
        raise DataError(
            f"tokenizer.ggml.pre must be one of {', '.join(CUTS)}; got {named!r:.80}; "
            "give --tokenizer with the model's tokenizer.json"
        )
    merges = [merge.split(" ") for merge in _list(metadata, "merges", str)]
    if wrong := next((merge for merge in merges if len(merge) != 2), None):
        raise DataError(f"tokenizer.ggml.merges must be pairs of pieces, got {' '.join(wrong)!r:.80}")
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    splits = [
        {"type": "Split", "pattern": {"Regex": cut}, "behavior": "Isolated", "invert": False}
        for cut in CUTS[pre]
    ]
    return {
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [*splits, byte_level]},
        "decoder": byte_level,
        "model": _bpe(tokens, merges, ignore_merges=pre in WHOLE_WORDS),
    }


def _scored_bpe(tokens: list[str], kinds: list[int], scores: list[float]) -> dict[str, Any]:
    """SentencePiece's BPE joins the neighbours whose piece has the best score. Merges of all ways to halve
    each piece, in the order of scores, do the same.
    """
    common = {
        piece: score for piece, score, kind in zip(tokens, scores, kinds, strict=True) if kind == NORMAL
    }
    joined = [piece for piece in common if len(piece) > 1]
    if len({common[piece] for piece in joined}) < len(joined) or not all(map(isfinite, scores)):
        raise DataError(
            "the pieces' scores must be finite and differ, or it is not known which pieces join first"
        )
    if max(map(len, joined), default=0) > LONGEST:
        raise DataError(f"the pieces must have at most {LONGEST} letters, and one is longer")
    if alone := next((letter for piece in joined for letter in piece if letter not in common), None):
        raise DataError(f"each letter of a piece must be a piece, but the vocabulary has no {alone!r}")
    merges = [
        [piece[:at], piece[at:]]
        for piece in sorted(joined, key=lambda piece: -common[piece])
        for at in reversed(range(1, len(piece)))
        if piece[:at] in common and piece[at:] in common
    ]
    return _bpe(tokens, merges, byte_fallback=True)


def _bpe(tokens: list[str], merges: list[list[str]], **switches: bool) -> dict[str, Any]:
    vocabulary = {piece: token for token, piece in enumerate(tokens)}
    return {"type": "BPE", **switches, "vocab": vocabulary, "merges": merges}


def _list(metadata: Mapping[str, Any], key: str, kind: type) -> list[Any]:
    values = metadata.get(f"tokenizer.ggml.{key}")
    if values is None:
        raise DataError(f"tokenizer.ggml.{key} is missing")
    values = values.tolist() if hasattr(values, "tolist") else values
    if not isinstance(values, list | tuple) or not all(type(value) is kind for value in values):
        raise DataError(f"tokenizer.ggml.{key} must be a list of {kind.__name__}, got {values!r:.80}")
    return list(values)


def _added_tokens(tokens: list[str], kinds: list[int], plain: tuple[int, ...]) -> list[dict[str, Any]]:
    """Every token that is not common: unused ones count as special, so that no text makes them."""
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    added = []
    for token, (content, kind) in enumerate(zip(tokens, kinds, strict=True)):
        if kind in (UNKNOWN, CONTROL, USER_DEFINED, UNUSED):
            added.append({"id": token, "content": content, "special": kind != USER_DEFINED, **flags})
        elif kind not in plain:
            raise DataError(
                f"tokenizer.ggml.token_type has {kind} for token {token}, which is not known here"
            )
    return added
