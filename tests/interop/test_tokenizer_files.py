"""Tokens that only the small files of a directory declare, and whether tokenizer, template and model fit."""

import json
from pathlib import Path
from typing import Any

import pytest
import tokenizers as library

from llm_jax.base.errors import CheckpointError, DataError
from llm_jax.interop.huggingface.tokenizer_files import named_tokens, read_directory_tokenizer
from llm_jax.tokenization.added_tokens import token_names, with_added_tokens
from llm_jax.tokenization.chat_format import ChatFormat
from llm_jax.tokenization.from_huggingface import FileTokenizer
from llm_jax.tokenization.language_check import check_tokens, require_same_pieces
from tests.tokenization.test_conversation import CHATML
from tests.tokenization.test_file_tokenizer import byte_level, unigram

CONFIG, MAP, ADDED = "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"


def written(folder: Path, **files: Any) -> Path:
    for name, content in ({"tokenizer": byte_level()} | files).items():
        (folder / f"{name}.json").write_text(json.dumps(content))
    return folder


def read(folder: Path, **files: Any) -> tuple[FileTokenizer, str | None]:
    return read_directory_tokenizer(written(folder, **files))


def test_declared_tokens_are_markers_with_the_ids_of_the_library(tmp_path: Path) -> None:
    tokenizer, remark = read(
        tmp_path, added_tokens={"<tool>": 309}, special_tokens_map={"eos_token": "<end>"}
    )
    reference = library.Tokenizer.from_str(json.dumps(byte_level()))
    reference.add_tokens(["<tool>"])
    reference.add_special_tokens(["<end>"])
    for token in ("<tool>", "<end>"):
        assert tokenizer.token_id(token) == reference.token_to_id(token)
        assert tokenizer.token_id(token) not in tokenizer.encode(f"x{token}").tolist()
    assert {marker["content"]: marker["special"] for marker in tokenizer.markers()}["<tool>"] is False
    assert tokenizer.token_bytes(309) == b"<tool>"
    assert remark is None
    assert named_tokens(tmp_path) == {"eos_token": "<end>"}
    again = FileTokenizer(tokenizer.to_dict()["content"])
    assert again.encode("hums").tolist() == FileTokenizer(byte_level()).encode("hums").tolist()


def test_nothing_declared_changes_nothing(tmp_path: Path) -> None:
    tokenizer, remark = read(tmp_path, tokenizer_config={"eos_token": "<|im_end|>"})
    assert (tokenizer.to_dict()["content"], remark) == (byte_level(), None)


def test_an_id_that_is_declared_and_not_given_is_told(tmp_path: Path) -> None:
    flags = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": True}
    config = {"added_tokens_decoder": {"7": {"content": "<a>", **flags}, "320": {"content": "<b>", **flags}}}
    tokenizer, remark = read(tmp_path, tokenizer_config=config)
    assert [tokenizer.token_id(token) for token in ("<a>", "<b>")] == [309, 310]
    assert remark is not None
    assert "'<a>' is declared with id 7 and gets 309, as in transformers, and 1 more" in remark
    (tmp_path / CONFIG).unlink()
    tokenizer, remark = read(tmp_path, added_tokens={"<a>": 300})
    assert (remark or "").endswith("'<a>' is declared with id 300 and left out, as in transformers")
    assert tokenizer.token_id("<a>") is None


BAD = [
    ({"tokenizer_config": {"added_tokens_decoder": []}}, "must be an object of ids, got '\\[\\]'"),
    ({"tokenizer_config": {"added_tokens_decoder": {"-1": {"content": "x"}}}}, "must be an object of ids"),
    ({"tokenizer_config": {"added_tokens_decoder": {"9" * 5000: {}}}}, "must be an object of ids"),
    ({"tokenizer_config": {"added_tokens_decoder": {"309": 3}}}, "decoder 309 must be a string or an object"),
    (
        {"tokenizer_config": {"added_tokens_decoder": {"309": {}}}},
        "decoder 309 must be a string or an object",
    ),
    (
        {"tokenizer_config": {"added_tokens_decoder": {"309": {"content": "a", "special": 1}}}},
        "decoder 309 must",
    ),
    ({"tokenizer_config": {"additional_special_tokens": 3}}, "additional_special_tokens must be a list"),
    ({"tokenizer_config": {"additional_special_tokens": [[]]}}, "additional_special_tokens must be a string"),
    ({"tokenizer_config": {"pad_token": 2}}, "pad_token must be a string or an object"),
    ({"special_tokens_map": {"sep_token": {"contents": "x"}}}, "special_tokens_map.json: sep_token must be"),
    ({"added_tokens": {"<a>": "3"}}, "added_tokens.json: '<a>' must have an id, got '3'"),
    ({"added_tokens": {"<a>": True}}, "must have an id"),
    ({"added_tokens": {"": 3}}, "must be a string or an object"),
    ({"added_tokens": []}, "must be a JSON object"),
]


@pytest.mark.parametrize(("files", "words"), BAD, ids=[str(number) for number in range(len(BAD))])
def test_a_damaged_file_is_refused_in_one_line(tmp_path: Path, files: dict[str, Any], words: str) -> None:
    with pytest.raises((CheckpointError, DataError), match=words) as caught:
        read(tmp_path, **files)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300 + len(str(tmp_path))


def test_a_directory_without_a_tokenizer_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"a tokenizer.json must be there.*give --tokenizer"):
        read_directory_tokenizer(tmp_path)
    (tmp_path / "vocab.json").write_text("{}")
    with pytest.raises(DataError, match=r"it has vocab.json, which are not read; save one with"):
        read_directory_tokenizer(tmp_path)
    (tmp_path / "elsewhere").mkdir()
    home = tmp_path / "home"
    home.mkdir()
    (home / "tokenizer.json").symlink_to(written(tmp_path / "elsewhere") / "tokenizer.json")
    assert read_directory_tokenizer(home)[0].vocab_size


def test_a_vocabulary_with_holes_gets_no_token_at_an_id_that_is_taken() -> None:
    content = byte_level() | {"added_tokens": []}
    del content["model"]["vocab"]["Ā"]
    with pytest.raises(DataError, match="'<a>' gets id 299, which is taken"):
        with_added_tokens(FileTokenizer(content), [{"content": "<a>", "special": True}])


def fitting(chat: ChatFormat, vocab_size: int = 400) -> str | None:
    content = byte_level()
    content["added_tokens"] = [token for token in content["added_tokens"] if not token["content"].isspace()]
    return check_tokens(FileTokenizer(content), chat, vocab_size, "FILE")


def test_a_template_whose_markers_are_tokens_fits() -> None:
    end = FileTokenizer(byte_level()).token_id("<|im_end|>") or 0
    assert fitting(ChatFormat(CHATML, eos_ids=(end,))) is None
    assert fitting(ChatFormat()) is None
    assert fitting(ChatFormat("{{ raise_exception('no') }}")) is None
    assert fitting(ChatFormat("{% for m in messages %}[INST] <b> {{ m.content }}{% endfor %}")) is None
    said = fitting(
        ChatFormat(
            "{% for m in messages %}<|user|>{{ m.content }}{{ eos_token }}{% endfor %}",
            eos="<|im_end|>",
            eos_ids=(end,),
        )
    )
    assert said is not None
    assert (
        "FILE: the chat template writes '<|user|>', which is no token of the tokenizer; it is spelt" in said
    )


@pytest.mark.parametrize(
    ("chat", "size", "words"),
    [
        (
            ChatFormat(CHATML.replace("im_", "turn_")),
            400,
            r"FILE: .* writes '<\|turn_start\|>', which is no token",
        ),
        (
            ChatFormat(CHATML.replace("im_end", "end"), eos_ids=(300,)),
            400,
            r"'<\|end\|>'.*nothing that ends a turn",
        ),
        (
            ChatFormat(eos_ids=(399,)),
            400,
            "FILE: eos_token_id in generation_config.json or config.json must be.*399 is not",
        ),
        (ChatFormat(CHATML), 301, r"writes '<\|im_start\|>' with id 301, and the model has ids to 300 alone"),
        (ChatFormat(), 290, "has id 299, and the model has ids to 289 alone"),
    ],
)
def test_what_does_not_fit_is_refused_with_the_marker(chat: ChatFormat, size: int, words: str) -> None:
    with pytest.raises(DataError, match=words):
        fitting(chat, size)


def test_a_given_tokenizer_must_be_the_files_own() -> None:
    tokenizer = FileTokenizer(unigram())
    names = token_names(tokenizer)
    tokens = [names[token] for token in range(len(names))]
    require_same_pieces(tokenizer, {"tokenizer.ggml.tokens": [*tokens, "[PAD]"]})
    tokens[-2] = "other"
    with pytest.raises(DataError, match=r"must be the GGUF file's, but its id .* is 's', and there 'other'"):
        require_same_pieces(tokenizer, {"tokenizer.ggml.tokens": tokens})
