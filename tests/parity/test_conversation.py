"""Token ids of conversations beside transformers, where no message has a marker in it."""

import json
from pathlib import Path
from typing import Any

import pytest
import tokenizers as library
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from llm_jax.interop.chat_format import read_directory_chat
from llm_jax.interop.huggingface.tokenizer_files import read_directory_tokenizer
from llm_jax.tokenization.chat_format import ChatFormat
from llm_jax.tokenization.conversation import conversation_tokens
from llm_jax.tokenization.from_huggingface import FileTokenizer
from tests.parity.test_tokenizers import TEMPLATES, TURNS
from tests.tokenization.test_file_tokenizer import byte_fallback, byte_level, unigram

MARKERS = ["<|im_start|>", "<|im_end|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<s>"]


def first_space() -> dict[str, Any]:
    space = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": False}
    return byte_fallback(prefix=False) | {"normalizer": None, "pre_tokenizer": space}


@pytest.mark.parametrize("strips", [False, True])
@pytest.mark.parametrize("content", [byte_level, byte_fallback, first_space, unigram])
@pytest.mark.parametrize("name", TEMPLATES)
def test_a_conversation_has_the_ids_of_transformers(name: str, content: Any, strips: bool) -> None:
    base = library.Tokenizer.from_str(json.dumps(content()))
    base.add_special_tokens([library.AddedToken(text, rstrip=strips, normalized=False) for text in MARKERS])
    theirs = PreTrainedTokenizerFast(tokenizer_object=base, bos_token="<s>", eos_token="<|im_end|>")
    ours = FileTokenizer(json.loads(base.to_str()))
    messages = [
        {"role": ("user", "assistant")[n % 2], "content": turn.replace("</s>", "")}
        for n, turn in enumerate(TURNS)
    ]
    messages.insert(0, {"role": "system", "content": " Be short.\n"})
    wanted = theirs.apply_chat_template(
        messages, chat_template=TEMPLATES[name], add_generation_prompt=True, return_dict=False
    )
    got = conversation_tokens(messages, ChatFormat(TEMPLATES[name], "<s>", "<|im_end|>"), ours)
    assert got == wanted


LOOKING = """{{ bos_token }}{% for m in messages %}{% set c = m.content %}<|im_start|>{{ m.role }}
{% if c.startswith('/think') or c == 'hello' or c[0] == 'T' %}<|eot_id|>{% endif %}
{% if '4' in c and c | length > 3 %}{{ c.split('4')[-1] | trim }}{% else %}{{ c }}{% endif %}{{ eos_token }}
{% endfor %}{{ pad_token ~ unk_token }}{{ sep_token is defined }}{{ cls_token }}"""


def test_a_template_that_looks_into_messages_has_the_ids_of_transformers() -> None:
    base = library.Tokenizer.from_str(json.dumps(byte_level()))
    base.add_special_tokens([*MARKERS, "<pad>"])
    names = {"bos": "<s>", "eos": "<|im_end|>", "pad": "<pad>", "unk": "<|eot_id|>"}
    theirs = PreTrainedTokenizerFast(
        tokenizer_object=base, **{f"{name}_token": token for name, token in names.items()}
    )
    ours = FileTokenizer(json.loads(base.to_str()))
    chat = ChatFormat(LOOKING, **names)  # pyright: ignore
    for texts in (TURNS[:3], ("hello", "/think", " hello", "2+2=4"), ("4 eggs", "T", "t", "<b>4</b>")):
        messages = [{"role": ("user", "assistant")[n % 2], "content": text} for n, text in enumerate(texts)]
        wanted = theirs.apply_chat_template(
            messages, chat_template=LOOKING, add_generation_prompt=True, return_dict=False
        )
        assert conversation_tokens(messages, chat, ours) == wanted


FLAGS = dict.fromkeys(("lstrip", "normalized", "rstrip", "single_word"), False)
START, END = "<|start_header_id|>", "<|eot_id|>"
DECODER = {
    "309": {"content": START, "special": True, **FLAGS},
    "310": {"content": END, "special": True, **FLAGS},
}
CONFIG, MAP, ADDED = "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"
WITH_TYPE = {"__type": "AddedToken", "content": END, **FLAGS, "special": True}
# What lies beside a tokenizer.json whose vocabulary has ids to 308.
SMALL_FILES: dict[str, dict[str, Any]] = {
    "added_tokens_decoder": {CONFIG: {"added_tokens_decoder": DECODER, "eos_token": END}},
    "ids of others": {
        CONFIG: {"added_tokens_decoder": {"5": DECODER["309"], "301": DECODER["310"]}, "eos_token": END}
    },
    "ids with a hole": {CONFIG: {"added_tokens_decoder": {"400": DECODER["309"], "500": DECODER["310"]}}},
    "other flags": {
        CONFIG: {
            "added_tokens_decoder": DECODER
            | {"302": DECODER["310"] | {"content": "<|im_end|>", "rstrip": True}}
        }
    },
    "the decoder stands alone": {
        CONFIG: {"added_tokens_decoder": DECODER, "bos_token": "<|im_start|>"},
        MAP: {"bos_token": "<|endoftext|>", "eos_token": END, "pad_token": "<pad>"},
        ADDED: {"<other>": 311},
    },
    "added_tokens": {ADDED: {END: 310, START: 309}, CONFIG: {"eos_token": END}},
    "added_tokens at ids of others": {ADDED: {END: 300, START: 5}},
    "added_tokens of a name": {ADDED: {"lamp": 309, END: 310}, MAP: {"eos_token": END}},
    "map": {
        MAP: {"bos_token": "<|endoftext|>", "eos_token": {"content": END, **FLAGS}},
        ADDED: {START: 309, END: 310},
    },
    "map over config": {
        CONFIG: {"bos_token": "<|im_end|>", "unk_token": END},
        MAP: {"bos_token": "<|im_start|>"},
    },
    "additional": {CONFIG: {"additional_special_tokens": [START, END], "pad_token": "<|im_end|>"}},
    "additional in the map": {MAP: {"additional_special_tokens": [START, END]}},
    "extra": {CONFIG: {"extra_special_tokens": [START, WITH_TYPE], "sep_token": WITH_TYPE}},
    "named extra": {CONFIG: {"extra_special_tokens": {"start_token": START, "end_token": END}}},
    "a model's own names": {CONFIG: {"image_token": START, "end_token": END, "add_prefix_space": False}},
    "a piece": {CONFIG: {"eos_token": "th", "unk_token": END, "mask_token": START}},
    "nothing": {CONFIG: {}},
}


@pytest.mark.parametrize("name", SMALL_FILES)
def test_the_files_beside_a_tokenizer_say_what_they_say_to_transformers(name: str, tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text(json.dumps(byte_level()))
    files = SMALL_FILES[name] | {
        CONFIG: {"tokenizer_class": "PreTrainedTokenizerFast"} | SMALL_FILES[name].get(CONFIG, {})
    }
    for file, content in files.items():
        (tmp_path / file).write_text(json.dumps(content))
    template = (
        "{{ bos_token }}{% for m in messages %}<|start_header_id|>{{ m.role }} <|im_end|> {{ m.content }} "
        "lamp th<|eot_id|>{% endfor %}{{ eos_token }}{{ pad_token }}{{ unk_token }}{{ sep_token }}"
    )
    (tmp_path / "chat_template.jinja").write_text(template)
    theirs = AutoTokenizer.from_pretrained(tmp_path)
    ours, _ = read_directory_tokenizer(tmp_path)
    chat = read_directory_chat(tmp_path, {}, ours.token_id, 1000)
    messages = [{"role": "user", "content": "it hums"}, {"role": "assistant", "content": " when\ncold"}]
    wanted = theirs.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
    assert conversation_tokens(messages, chat, ours) == wanted
    assert [chat.bos, chat.eos, chat.pad, chat.unk, chat.sep] == [
        getattr(theirs, f"{token}_token") for token in ("bos", "eos", "pad", "unk", "sep")
    ]
    added = {token["content"]: token["id"] for token in ours.to_dict()["content"]["added_tokens"]}
    assert added == theirs.get_added_vocab()
