"""The tokenizer of a Hugging Face directory: tokenizer.json, and tokens that only files beside it declare.

Where files contradict one another, what transformers takes is taken (its `_from_pretrained` and
`TokenizersBackend`): a tokenizer_config.json with added_tokens_decoder stands alone; any other is overruled
by special_tokens_map.json and joined by added_tokens.json. Every value is a stranger's.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from llm_jax.base.errors import CheckpointError, DataError
from llm_jax.interop.huggingface.read_directory import own_file, read_json
from llm_jax.interop.source import quoted
from llm_jax.tokenization.added_tokens import FLAGS, token_names, with_added_tokens
from llm_jax.tokenization.from_huggingface import FileTokenizer, read_tokenizer_file
from llm_jax.tokenization.from_sentencepiece import read_sentencepiece
from llm_jax.tokenization.start_tokens import Named, with_tokens_around

_CONFIG, _MAP, _ADDED = "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"
_FIRST = tuple(f"{name}_token" for name in ("bos", "eos", "unk", "sep", "pad", "cls", "mask"))
_EXTRA = ("extra_special_tokens", "additional_special_tokens")
_ID = re.compile(r"[0-9]{1,9}")
_OTHERS = ("vocab.json", "merges.txt", "vocab.txt", "tekken.json", "tokenizer.model.v3", "tiktoken.model")


class _Small(NamedTuple):
    """The small files, as far as they count."""

    config: dict[str, Any]
    overruling: dict[str, Any]
    added: dict[str, Any]


def read_directory_tokenizer(folder: Path, file: Path | None = None) -> tuple[FileTokenizer, str | None]:
    """Return the tokenizer with all tokens that the directory declares, and a remark on contradictions in it.

    Args:
        folder: with the small files.
        file: a tokenizer.json or tokenizer.model in place of the directory's.

    Raises:
        CheckpointError, DataError: there is no tokenizer, or a file is damaged, or of no kind that is known.
    """
    file = _vocabulary_file(folder) if file is None else file
    tokenizer, small = read_vocabulary_file(file), _small(folder)
    own = tokenizer.to_dict()["content"].get("added_tokens") or []
    as_it_is = {token["content"]: _flagged(token) for token in own}
    # Where no added_tokens_decoder stands alone, tokenizer.json overrules.
    overruled = set() if "added_tokens_decoder" in small.config else {token["id"] for token in own}
    declared = sorted(_declared(small).items())
    tokens = [
        token for said, token in declared if said not in overruled and as_it_is.get(token["content"]) != token
    ]
    known = {token["content"] for token in (*own, *tokens)}
    for token in (*_named(small).values(), *_extra(small)):
        if token["content"] not in known:
            known.add(token["content"])
            tokens.append(token)
    joined = with_added_tokens(tokenizer, tokens)
    ids = {name: token for token, name in token_names(joined).items()}
    others = [
        f"the token {quoted(token['content'])} is declared with id {said:,} and "
        + ("left out" if got is None else f"gets {got:,}")
        for said, token in declared
        if (got := ids.get(token["content"])) != said
    ]
    more = f", and {len(others) - 1:,} more" if len(others) > 1 else ""
    if file.suffix == ".model":
        joined = _begun(joined, small)
    return joined, f"{folder}: {others[0]}, as in transformers{more}" if others else None


def _begun(tokenizer: FileTokenizer, small: _Small) -> FileTokenizer:
    """The tokenizer with bos before every text where a file says so. A tokenizer.json says it itself, and
    transformers then passes over add_bos_token.
    """
    asked = small.config.get("add_bos_token")
    if not isinstance(asked, bool | None):
        raise CheckpointError(f"{_CONFIG}: add_bos_token must be true or false, got {quoted(asked)}")
    bos = _named(small).get("bos_token", {}).get("content", "<s>")  # SentencePiece's own name
    token = tokenizer.token_id(bos)
    if not asked or token is None:
        return tokenizer
    return FileTokenizer(with_tokens_around(tokenizer.to_dict()["content"], [Named(bos, token)]))


def named_tokens(folder: Path) -> dict[str, str]:
    """Return what the directory calls bos_token, eos_token and so on."""
    return {name: token["content"] for name, token in _named(_small(folder)).items()}


def optional_json(folder: Path, name: str) -> dict[str, Any]:
    """Return the object in a small file that may be missing."""
    try:
        return read_json(own_file(folder, name)) if is_there(folder / name) else {}
    except OSError as error:
        raise CheckpointError(f"{folder / name} cannot be read: {error.strerror}") from None


def is_there(path: Path) -> bool:
    """Return whether there is a file or a link, broken ones too."""
    return path.is_symlink() or path.exists()


def read_vocabulary_file(path: Path) -> FileTokenizer:
    """Return the tokenizer in a tokenizer.json or a tokenizer.model, alone."""
    return read_sentencepiece(path) if path.suffix == ".model" else read_tokenizer_file(path)


def _vocabulary_file(folder: Path) -> Path:
    for name in ("tokenizer.json", "tokenizer.model"):
        if is_there(folder / name):
            return own_file(folder, name)
    others = [name for name in _OTHERS if is_there(folder / name)]
    has = f"; it has {', '.join(others)}, which are not read" if others else ""
    raise DataError(
        f"{folder}: a tokenizer.json must be there, or a SentencePiece tokenizer.model{has}; save one with "
        "transformers' AutoTokenizer, or give --tokenizer with a folder or file that has it"
    )


def _small(folder: Path) -> _Small:
    config = optional_json(folder, _CONFIG)
    if "added_tokens_decoder" in config:
        return _Small(config, {}, {})
    return _Small(config, optional_json(folder, _MAP), optional_json(folder, _ADDED))


def _declared(small: _Small) -> dict[int, dict[str, Any]]:
    """Tokens by the ids that files give them."""
    values = small.config.get("added_tokens_decoder", {})
    if not isinstance(values, dict) or not all(_ID.fullmatch(key) for key in values):
        raise CheckpointError(
            f"{_CONFIG}: added_tokens_decoder must be an object of ids, got {quoted(values)}"
        )
    declared = {
        int(key): _token(value, _CONFIG, f"added_tokens_decoder {key}") for key, value in values.items()
    }
    special = {token["content"] for token in (*_named(small).values(), *_extra(small))}
    for content, token_id in small.added.items():
        if type(token_id) is not int or token_id < 0:
            raise CheckpointError(f"{_ADDED}: {quoted(content)} must have an id, got {quoted(token_id)}")
        declared[token_id] = _token(
            {"content": content, "special": content in special}, _ADDED, quoted(content)
        )
    return declared


def _named(small: _Small) -> dict[str, dict[str, Any]]:
    """Special tokens by names such as bos_token, of which models may have their own."""
    named: dict[str, dict[str, Any]] = {}
    for where, fields in ((_CONFIG, small.config), (_MAP, small.overruling)):
        more = [fields[key] for key in _EXTRA if isinstance(fields.get(key), dict)]
        for name, value in (pair for values in (fields, *more) for pair in values.items()):
            text = value.get("content") if isinstance(value, dict) else value
            if name in _FIRST and (value is None or text == ""):
                named.pop(name, None)
            elif name in _FIRST or (name.endswith("_token") and isinstance(text, str) and text):
                named[name] = _token(value, where, name, special=True)
    return dict(sorted(named.items(), key=lambda item: (*_FIRST, item[0]).index(item[0])))


def _extra(small: _Small) -> list[dict[str, Any]]:
    """Special tokens without a name."""
    found = []
    for where, fields in ((_CONFIG, small.config), (_MAP, small.overruling)):
        name = next((key for key in _EXTRA if fields.get(key)), _EXTRA[0])
        values = fields.get(name) or []
        if not isinstance(values, list | dict):
            raise CheckpointError(f"{where}: {name} must be a list, got {quoted(values)}")
        if isinstance(values, list):
            found += [_token(value, where, name, special=True) for value in values]
    return found


def _token(value: Any, where: str, name: str, **given: bool) -> dict[str, Any]:
    """A token as a tokenizer.json has it, of a string or of an object with its content."""
    token = _flagged({**value, **given} if isinstance(value, dict) else {"content": value, **given})
    content, *flags = token.values()
    if not isinstance(content, str) or not content or not all(isinstance(flag, bool) for flag in flags):
        raise CheckpointError(
            f"{where}: {name} must be a string or an object with content, got {quoted(value)}"
        )
    return token


def _flagged(fields: Mapping[str, Any]) -> dict[str, Any]:
    flags = {"normalized": not fields.get("special", False), **fields}
    return {"content": fields.get("content"), **{flag: flags.get(flag, False) for flag in FLAGS}}
