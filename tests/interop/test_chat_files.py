"""Templates and end tokens of other programs' models: what they say comes, what is damaged is one line."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from llm_jax.base.errors import CheckpointError, DataError
from llm_jax.interop.chat_format import read_directory_chat, read_gguf_chat
from llm_jax.tokenization.chat_format import MOST_TEMPLATE, ChatFormat

IDS = {"<s>": 1, "</s>": 2}
GENERATION, CONFIG, TEMPLATE = "generation_config.json", "tokenizer_config.json", "chat_template.jinja"


def read(folder: Path, files: dict[str, Any], config: dict[str, Any] | None = None) -> ChatFormat:
    for name, content in files.items():
        (folder / name).write_text(content if isinstance(content, str) else json.dumps(content))
    return read_directory_chat(folder, config or {}, IDS.get, 10)


def test_a_directory_says_template_tokens_and_ends(tmp_path: Path) -> None:
    files = {CONFIG: {"chat_template": "T", "bos_token": "<s>", "eos_token": {"content": "</s>"}}}
    assert read(tmp_path, files) == ChatFormat("T", "<s>", "</s>", (2,))
    assert read(tmp_path, {}, {"eos_token_id": 3}).eos_ids == (3, 2)
    assert read(tmp_path, {GENERATION: {"eos_token_id": [5, 2, 5]}}, {"eos_token_id": 3}).eos_ids == (5, 2)
    named = [{"name": "tool_use", "template": "A"}, {"name": "default", "template": "B"}]
    assert read(tmp_path, {CONFIG: {"chat_template": named}}).template == "B"
    assert read(tmp_path, {CONFIG: {"chat_template": named[:1]}}).template is None
    assert read(tmp_path, {TEMPLATE: "F"}).template == "F"


def test_ids_to_begin_and_fill_with_are_known_where_the_model_has_a_row_for_them(tmp_path: Path) -> None:
    files = {CONFIG: {"bos_token": "<s>"}, GENERATION: {"pad_token_id": 4}}
    assert read(tmp_path, files, {"bos_token_id": 1, "pad_token_id": 5}) == ChatFormat(bos="<s>", pad_id=4)
    assert read(tmp_path, files, {"bos_token_id": 3}) == ChatFormat(bos="<s>", bos_id=3, pad_id=4)
    beyond = {"bos_token_id": 10, "pad_token_id": -1}
    assert read(tmp_path, {GENERATION: beyond}, {}) == ChatFormat(bos="<s>")


def test_a_template_may_lie_in_five_places(tmp_path: Path) -> None:
    assert read(tmp_path, {"chat_template.json": {"chat_template": "P"}}).template == "P"
    assert read(tmp_path, {CONFIG: {"chat_template": {"tool_use": "A", "default": "C"}}}).template == "C"
    assert read(tmp_path, {TEMPLATE: "F"}).template == "F"
    (tmp_path / "additional_chat_templates").mkdir()
    assert read(tmp_path, {"additional_chat_templates/tool_use.jinja": "T"}).template == "F"
    assert read(tmp_path, {"additional_chat_templates/default.jinja": "D"}).template == "D"


def test_tokens_have_names_in_either_file(tmp_path: Path) -> None:
    told = {"pad_token": "<p>", "unk_token": {"content": "<u>"}, "sep_token": "|", "bos_token": "<b>"}
    assert read(tmp_path, {CONFIG: told}) == ChatFormat(bos="<b>", pad="<p>", unk="<u>", sep="|")
    chat = read(tmp_path, {"special_tokens_map.json": {"bos_token": "<s>", "eos_token": "</s>"}})
    assert chat == ChatFormat(bos="<s>", eos="</s>", eos_ids=(2,), pad="<p>", unk="<u>", sep="|")
    assert read(tmp_path, {CONFIG: told | {"added_tokens_decoder": {}}}).bos == "<b>"


def test_a_directory_that_says_nothing_has_no_chat(tmp_path: Path) -> None:
    assert read(tmp_path, {}) == ChatFormat()
    nothing = {"eos_token": None, "bos_token": "", "chat_template": None}
    assert read(tmp_path, {CONFIG: nothing}) == ChatFormat()


BAD_FILES = [
    ({CONFIG: {"chat_template": 3}}, "chat_template must be a string or a list, got '3'"),
    ({CONFIG: {"chat_template": ["a"]}}, "must list objects with name and template"),
    ({CONFIG: {"chat_template": [{"name": 1, "template": "x"}]}}, "must list objects with name"),
    ({CONFIG: {"chat_template": "x" * (MOST_TEMPLATE + 1)}}, "must be a text of 1 to 262,144"),
    ({TEMPLATE: "x" * (5 * MOST_TEMPLATE)}, "at most 1,048,576 bytes"),
    ({CONFIG: {"eos_token": 2}}, "eos_token must be a string or an object"),
    ({CONFIG: {"bos_token": {"contents": "<s>"}}}, "bos_token must be a string or an object"),
    ({CONFIG: {"bos_token": "x" * 300}}, "bos must be a text of 1 to 200"),
    ({CONFIG: "[]"}, "must be a JSON object"),
    ({CONFIG: "{"}, "must be JSON"),
    ({GENERATION: {"eos_token_id": "2"}}, "eos_token_id must be an id or a list of ids, got '2'"),
    ({GENERATION: {"eos_token_id": [2, True]}}, "eos_token_id must be an id or a list of ids"),
    ({GENERATION: {"eos_token_id": 10}}, "must be a whole number from 0 to 9, got 10"),
    ({GENERATION: {"eos_token_id": [-1]}}, "must be a whole number from 0 to 9"),
    ({GENERATION: {"pad_token_id": [1]}}, "pad_token_id must be an id, got"),
    ({GENERATION: {"bos_token_id": "1"}}, "bos_token_id must be an id, got '1'"),
]


@pytest.mark.parametrize(("files", "words"), BAD_FILES, ids=[words[:30] for _, words in BAD_FILES])
def test_a_damaged_file_is_refused_in_one_line(tmp_path: Path, files: dict[str, Any], words: str) -> None:
    with pytest.raises((CheckpointError, DataError), match=words) as caught:
        read(tmp_path, files)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300 + len(str(tmp_path))


def test_a_link_that_leads_nowhere_is_not_a_missing_file(tmp_path: Path) -> None:
    home = tmp_path / "model"
    home.mkdir()
    for name in (CONFIG, TEMPLATE):
        (home / name).symlink_to(tmp_path / "absent")
        with pytest.raises(CheckpointError, match="is a link to"):
            read(home, {})
        (home / name).unlink()


METADATA: dict[str, Any] = {
    "tokenizer.ggml.tokens": ["a", "<s>", "</s>", "<eot>", "<eom>"],
    "tokenizer.ggml.bos_token_id": 1,
    "tokenizer.ggml.eos_token_id": 2,
}


def test_a_gguf_file_says_template_tokens_and_ends() -> None:
    assert read_gguf_chat(METADATA, 10) == ChatFormat(None, "<s>", "</s>", (2,))
    more = {f"tokenizer.ggml.{name}_token_id": token for name, token in (("eot", 3), ("eom", 4))}
    chat = read_gguf_chat(METADATA | more | {"tokenizer.chat_template": "T"}, 10)
    assert chat == ChatFormat("T", "<s>", "</s>", (2, 3, 4))
    named = {f"tokenizer.ggml.{name}_token_id": token for name, token in (("padding", 3), ("unknown", 0))}
    chat = read_gguf_chat(METADATA | named | {"tokenizer.ggml.seperator_token_id": 4}, 10)
    assert chat == ChatFormat(None, "<s>", "</s>", (2,), pad="<eot>", unk="a", sep="<eom>")
    assert read_gguf_chat({"tokenizer.chat_template": ""}, 10) == ChatFormat()
    for token, known in ((3, "<eot>"), (2**32 - 1, None)):
        assert read_gguf_chat(METADATA | {"tokenizer.ggml.padding_token_id": token}, 10).pad == known


BAD_KEYS = [
    ({"tokenizer.chat_template": 3}, "template must be a text"),
    ({"tokenizer.chat_template": np.zeros(3)}, "template must be a text"),
    ({"tokenizer.chat_template": "x" * (MOST_TEMPLATE + 1)}, "template must be a text"),
    ({"tokenizer.ggml.eos_token_id": 5}, "eos_token_id must be a whole number from 0 to 4, got 5"),
    ({"tokenizer.ggml.eot_token_id": -1}, "eot_token_id must be a whole number"),
    ({"tokenizer.ggml.bos_token_id": 1.0}, "bos_token_id must be a whole number"),
    ({"tokenizer.ggml.eom_token_id": "2"}, "eom_token_id must be a whole number"),
    ({"tokenizer.ggml.padding_token_id": 2.0}, "padding_token_id must be a whole number"),
]


@pytest.mark.parametrize(("keys", "words"), BAD_KEYS, ids=[words for _, words in BAD_KEYS])
def test_a_damaged_key_is_refused_in_one_line(keys: dict[str, Any], words: str) -> None:
    with pytest.raises((CheckpointError, DataError), match=words) as caught:
        read_gguf_chat(METADATA | keys, 10)
    assert "\n" not in str(caught.value)
