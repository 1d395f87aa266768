"""The content of a `tokenizer.json` as a GGUF file says it: the opposite of `gguf_tokenizer`, by which it is
proved. What llama.cpp would do otherwise is refused.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from llm_jax.base.errors import DataError
from llm_jax.tokenization.byte_letters import BYTE_OF_LETTER
from llm_jax.tokenization.from_gguf import (
    BYTE,
    CONTROL,
    CUTS,
    NORMAL,
    UNKNOWN,
    UNUSED,
    USER_DEFINED,
    WHOLE_WORDS,
    gguf_tokenizer_json,
)
from llm_jax.tokenization.from_huggingface import BYTE_PIECE, FileTokenizer
from llm_jax.tokenization.start_tokens import tokens_around
from llm_jax.tokenization.to_huggingface import CL100K_CUT
from llm_jax.tokenization.train_bpe import PATTERN

# How the files of Llama 3 and Qwen write their cuts; llama.cpp leaves the long s after an apostrophe alone.
_OTHER_WORDS = {
    rf"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|{digits}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+": CUTS[pre][0]
    for pre, digits in (("llama-bpe", r"\p{N}{1,3}"), ("qwen2", r"\p{N}"))
} | {CL100K_CUT: CUTS["dbrx"][0]}  # but for the end of a text: see `ends_otherwise`
_RESERVED = re.compile(r"\[PAD\d+\]")
# Of a text, a turn and a message; llama.cpp stops at each of them, and knows no further ones.
ENDS = ("eos", "eot", "eom")
# No text in UTF-8 has this byte.
_NEVER = next(letter for letter, byte in BYTE_OF_LETTER.items() if byte == 0xFF)


def gguf_tokenizer(content: Mapping[str, Any], rows: int, chat: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings that begin with `tokenizer.`, with which llama.cpp gives any text the ids that it has
    here.

    One thing is not said in them: Qwen's files compose accents (NFC) before all else, llama.cpp does not.

    Args:
        content: of the `tokenizer.json`.
        rows: ids that the model has; those that the tokenizer leaves unused get names.
        chat: what is known of conversations, as `ChatFormat.to_dict` gives it.

    Raises:
        DataError: llama.cpp has no such tokenizer, and why.
    """
    model = content["model"]
    if model.get("type", "BPE") != "BPE":
        raise DataError(f"llama.cpp's {model['type']} is not written here")
    pieces, kinds = _tokens(content, rows)
    fallback = model.get("byte_fallback") is True
    settings = {"tokenizer.ggml.tokens": pieces, "tokenizer.ggml.token_type": np.array(kinds, np.int32)}
    settings |= _sentencepiece(content, pieces, kinds) if fallback else _byte_level(content)
    settings |= _ends(content, pieces, kinds, chat)
    settings |= _begin(content)
    if chat.get("template"):
        settings["tokenizer.chat_template"] = chat["template"]
    _require_same(settings, content)
    return settings


def ends_otherwise(content: Mapping[str, Any]) -> bool:
    """Return whether the tokenizer takes line ends and spaces after them, at a text's end, for one piece,
    where llama.cpp makes two of them.
    """
    return CL100K_CUT in _cuts(content.get("pre_tokenizer"))


def composes_accents(content: Mapping[str, Any]) -> bool:
    """Return whether the tokenizer composes accents before all else (NFC), as llama.cpp does not."""
    return (content.get("normalizer") or {}).get("type") == "NFC"


def _tokens(content: Mapping[str, Any], rows: int) -> tuple[list[str], list[int]]:
    """What each id is called, and of which kind it is, for all rows of the model."""
    fallback = content["model"].get("byte_fallback") is True
    added_tokens = content.get("added_tokens") or []
    ids = [*content["model"]["vocab"].values(), *(added["id"] for added in added_tokens)]
    if max(ids) >= rows:
        raise DataError(f"the model must have a row for each id up to {max(ids):,}, but has {rows:,}")
    names, kinds = [f"[PAD{token}]" for token in range(rows)], [UNUSED] * rows
    for piece, token in content["model"]["vocab"].items():
        byte = fallback and BYTE_PIECE.fullmatch(piece)
        names[token], kinds[token] = piece, BYTE if byte else NORMAL
    for added in added_tokens:
        name, token = added["content"], added["id"]
        names[token] = name
        kinds[token] = USER_DEFINED
        if added.get("special"):
            unknown = fallback and name == content["model"].get("unk_token")
            kinds[token] = UNUSED if _RESERVED.fullmatch(name) else UNKNOWN if unknown else CONTROL
    if len(set(names)) < rows:
        raise DataError("every id must have a name of its own, and two of this tokenizer's have one")
    return names, kinds


def _byte_level(content: Mapping[str, Any]) -> dict[str, Any]:
    """GPT-2's kind, whose way to cut words has a name."""
    model, normalizer = content["model"], content.get("normalizer")
    if normalizer is not None and not composes_accents(content):
        raise DataError(f"llama.cpp does not change a text before it is cut, as {normalizer['type']} does")
    merges = [merge.split(" ") if isinstance(merge, str) else merge for merge in model["merges"]]
    cuts = list(_cuts(content.get("pre_tokenizer")))
    cuts = [_OTHER_WORDS.get(each or "", each) for each in cuts]
    whole = model.get("ignore_merges") is True
    named = [pre for pre, theirs in CUTS.items() if theirs == cuts and (pre in WHOLE_WORDS) == whole]
    if not merges and not whole:  # without merges it does not matter where words end
        named = ["gpt-2"]
    if not named:
        raise DataError("llama.cpp has no name for the way in which this tokenizer cuts words")
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": named[0],
        "tokenizer.ggml.merges": [" ".join(merge) for merge in merges],
    }


def _cuts(component: Any) -> Iterator[str | None]:
    """The expressions that cut one after the other; None for anything else that happens to a text."""
    parts = component["pretokenizers"] if (component or {}).get("type") == "Sequence" else [component]
    for part in parts:
        match part:
            case {"type": "Split", "pattern": {"Regex": cut}, "behavior": "Isolated", "invert": False}:
                yield cut
            case {"type": "Digits", "individual_digits": True}:
                yield r"\p{N}"
            case {"type": "ByteLevel", "add_prefix_space": False}:
                if part.get("use_regex", True):
                    yield PATTERN
            case _:
                yield None


def _sentencepiece(content: Mapping[str, Any], pieces: list[str], kinds: list[int]) -> dict[str, Any]:
    """SentencePiece's BPE, which joins by scores: the sooner the merges have a piece, the higher."""
    if not content["model"]["merges"]:
        raise DataError("llama.cpp's tokenizer of single characters has ids 0 to 2 for special tokens")
    merges = _pairs(content)
    joined = list(dict.fromkeys("".join(merge) for merge in merges))
    scores = dict(zip(joined, range(-1, -len(joined) - 1, -1), strict=True))
    for piece, kind in zip(pieces, kinds, strict=True):
        if kind == NORMAL and len(piece) > 1 and piece not in scores:
            raise DataError(f"llama.cpp joins neighbours to any piece, and no merge gives {piece!r:.80}")
    normalizers = (content.get("normalizer") or {}).get("normalizers") or []
    settings = {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.scores": np.array([scores.get(piece, 0) for piece in pieces], np.float32),
        "tokenizer.ggml.add_space_prefix": [each["type"] for each in normalizers] == ["Prepend", "Replace"],
    }
    unknown = content["model"].get("unk_token")
    if unknown in pieces:
        settings["tokenizer.ggml.unknown_token_id"] = pieces.index(unknown)
    return settings


def _pairs(content: Mapping[str, Any]) -> list[tuple[str, ...]]:
    return [
        tuple(merge.split(" ") if isinstance(merge, str) else merge) for merge in content["model"]["merges"]
    ]


def _ends(
    content: Mapping[str, Any], pieces: list[str], kinds: list[int], chat: Mapping[str, Any]
) -> dict[str, int]:
    """The ids at which a text begins and ends. llama.cpp takes ids of its own where a file says none, and
    stops there; so where none is known it is given one that no text has.
    """
    ids = {piece: token for token, piece in enumerate(pieces)}
    known = dict.fromkeys([ids.get(chat.get("eos") or ""), *(chat.get("eos_ids") or ())])
    ends = [token for token in known if token is not None]
    special = [added["id"] for added in content.get("added_tokens") or [] if added.get("special")]
    unused = [token for token, kind in enumerate(kinds) if kind == UNUSED]
    possible = [*ends, *unused, *special, *([ids[_NEVER]] if _NEVER in ids else [])]
    if not possible:
        raise DataError("llama.cpp needs a token at which a text ends, and this tokenizer has none")
    begin, fill = (
        ids.get(chat.get(name) or "") if chat.get(f"{name}_id") is None else chat[f"{name}_id"]
        for name in ("bos", "pad")
    )
    found: dict[str, int] = dict(zip(ENDS, ends or possible[:1], strict=False))
    found["bos"] = possible[0] if begin is None else begin
    if fill is not None:
        found["padding"] = fill
    return {f"tokenizer.ggml.{name}_token_id": token for name, token in found.items()}


def _begin(content: Mapping[str, Any]) -> dict[str, Any]:
    """Which token stands before every text. None is put after it, where prompts are to go on."""
    start = tokens_around(content).start
    if len(start) > 1:
        raise DataError(f"llama.cpp puts one token before a text, and this tokenizer puts {len(start)}")
    begin = {"tokenizer.ggml.bos_token_id": start[0].id} if start else {}
    return begin | {"tokenizer.ggml.add_bos_token": bool(start), "tokenizer.ggml.add_eos_token": False}


def _require_same(settings: Mapping[str, Any], content: Mapping[str, Any]) -> None:
    """What reads back must be the same tokenizer."""
    back = gguf_tokenizer_json(settings)
    if FileTokenizer(back).start_ids != tuple(token.id for token in tokens_around(content).start):
        raise DataError("llama.cpp puts other tokens before a text")
    if settings["tokenizer.ggml.model"] == "gpt2":
        return  # its merges and cuts are copied
    same = back["normalizer"] == content.get("normalizer") and content.get("pre_tokenizer") is None
    if not same or set(_pairs(back)) != set(_pairs(content)) or _order(back) != _order(content):
        raise DataError("llama.cpp joins such pieces in another order, or adds other spaces")


def _order(content: Mapping[str, Any]) -> list[str]:
    """The pieces that merges make, in their order; with others in between, a piece is there twice."""
    made = ["".join(pair) for pair in _pairs(content)]
    return [piece for piece, before in zip(made, [None, *made], strict=False) if piece != before]
