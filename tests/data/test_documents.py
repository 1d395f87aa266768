"""Documents in a token store: what stands between them, and that plain texts are stored as ever."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from llm_jax.base.errors import UserError
from llm_jax.config.run import DataConfig
from llm_jax.data.facts import label_facts, store_facts
from llm_jax.data.store import Store, open_store, prepare_store
from llm_jax.tokenization.end_of_text import end_of_text
from llm_jax.tokenization.from_dict import tokenizer_from_dict
from llm_jax.tokenization.from_huggingface import FileTokenizer
from llm_jax.tokenization.protocol import Tokenizer, decode, decode_bytes
from llm_jax.tokenization.to_huggingface import tokenizer_json
from tests.interop.test_convert import byte_level_tokenizer

TEXTS = [f"Document {number} says that it ends with {number}." for number in range(40)]


def stored(
    folder: Path, texts: list[str], inherited: Tokenizer | None = None, name: str = "x.jsonl", **options: Any
) -> Store:
    if name.endswith(".jsonl"):
        (folder / name).write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    config = DataConfig(corpus=str(folder / name), prepared=folder / "prepared", **options)
    return prepare_store(config, lambda _: None, inherited)


def all_ids(store: Store) -> np.ndarray:
    return np.concatenate([store.tokens("train"), store.tokens("validation")]).astype(np.int32)


def documents(store: Store) -> list[str]:
    """What stands between the end tokens of a store."""
    assert store.end_of_text is not None
    ids = all_ids(store)
    parts = np.split(ids, np.flatnonzero(ids == store.end_of_text.id))
    return [decode(store.tokenizer, part) for part in parts]


@pytest.mark.parametrize("options", [{}, {"rare_ids": "share"}, {"compact_vocab": False}], ids=str)
def test_records_have_an_end_token_between_them_that_stands_for_no_byte(
    options: dict[str, Any], tmp_path: Path
) -> None:
    store = stored(tmp_path, TEXTS, **options)
    assert documents(store) == TEXTS
    assert store.end_of_text == end_of_text(store.tokenizer)
    assert store.end_of_text is not None
    assert store.end_of_text.content == "<|endoftext|>"
    assert store.tokenizer.token_bytes(store.end_of_text.id) == b""
    assert store.num_bytes("train") + store.num_bytes("validation") == len("".join(TEXTS))
    assert not store.alters_text
    again = open_store(store.path)
    assert again.end_of_text == store.end_of_text
    assert dict(label_facts(store_facts(again)))["documents"] == "40"
    assert end_of_text(tokenizer_from_dict(store.tokenizer.to_dict())) == store.end_of_text


def test_an_end_token_is_kept_however_seldom_it_is(tmp_path: Path) -> None:
    """One that training lacks cannot be spelt with others."""
    store = stored(tmp_path, ["a word and another word " * 50, "the end"], validation_fraction=0.1)
    assert documents(store) == ["a word and another word " * 50, "the end"]
    assert store.end_of_text is not None
    assert store.end_of_text.id in store.tokens("validation")
    assert store.end_of_text.id not in store.tokens("train")


def test_text_that_looks_like_the_end_token_is_text(tmp_path: Path) -> None:
    texts = ["one <|endoftext|> two", "three"] * 4
    assert documents(stored(tmp_path, texts)) == texts


def test_a_tokenizer_of_a_file_has_its_own_end_token(tmp_path: Path) -> None:
    content = json.loads(byte_level_tokenizer().to_str())
    options = {"tokenizer": "inherited", "compact_vocab": False}
    without = stored(tmp_path, TEXTS, FileTokenizer(content), **options)
    assert without.end_of_text is None
    assert decode_bytes(without.tokenizer, all_ids(without)).decode() == "\n".join(TEXTS)
    content["added_tokens"][0]["content"] = "</s>"
    content["model"]["vocab"]["</s>"] = content["model"]["vocab"].pop("<|end|>")
    store = stored(tmp_path, TEXTS, FileTokenizer(content), **options)
    assert documents(store) == TEXTS
    assert store.num_bytes("train") + store.num_bytes("validation") == len("".join(TEXTS))


@pytest.mark.parametrize("tokenizer", ["bytes", "characters"])
def test_without_an_end_token_documents_are_joined_by_line_ends(tokenizer: str, tmp_path: Path) -> None:
    store = stored(tmp_path, TEXTS, tokenizer=tokenizer)
    assert store.end_of_text is None
    assert decode_bytes(store.tokenizer, all_ids(store)).decode() == "\n".join(TEXTS)
    with pytest.raises(UserError, match="needs a tokenizer with an end-of-text token, and"):
        stored(tmp_path, TEXTS, tokenizer=tokenizer, document_separator="token")


def test_a_plain_text_and_a_folder_are_stored_as_ever(tmp_path: Path) -> None:
    """What the store of such a text is called is part of what running runs rely on."""
    folder = tmp_path / "folder"
    folder.mkdir()
    for name, text in (("a.txt", TEXTS[0] * 3), ("b.txt", TEXTS[1] * 3)):
        (folder / name).write_text(text)
    (tmp_path / "joined.txt").write_text(f"{TEXTS[0] * 3}\n{TEXTS[1] * 3}")
    plain, several = (stored(tmp_path, [], name=name) for name in ("joined.txt", "folder"))
    assert plain.end_of_text is several.end_of_text is None
    assert plain.fingerprint == several.fingerprint
    assert plain.path.name == "joined-cl100k_base-ad3613b2cfe8"
    apart = stored(tmp_path, [], name="folder", document_separator="token")
    assert documents(apart) == [TEXTS[0] * 3, TEXTS[1] * 3]
    one = stored(tmp_path, TEXTS, document_separator="newline")
    assert one.end_of_text is None
    assert decode_bytes(one.tokenizer, all_ids(one)).decode() == "\n".join(TEXTS)


def test_where_one_document_ends_is_part_of_what_a_store_is(tmp_path: Path) -> None:
    one = stored(tmp_path, ["a b c d e f g h ", "i j k l m n o p"])
    other = stored(tmp_path, ["a b c d e f g h i", " j k l m n o p"])
    assert one.path != other.path


def test_an_exported_tokenizer_has_the_end_token(tmp_path: Path) -> None:
    store = stored(tmp_path, TEXTS, rare_ids="share")
    assert store.end_of_text is not None
    exported = FileTokenizer(tokenizer_json(store.tokenizer))
    assert end_of_text(exported) == store.end_of_text
    assert exported.encode(TEXTS[3]).tolist() == store.tokenizer.encode(TEXTS[3]).tolist()
