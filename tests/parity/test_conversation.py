"""Token ids of conversations beside transformers, where no message has a marker in it."""

import json
from typing import Any

import pytest
import tokenizers as library
from transformers import PreTrainedTokenizerFast

from llm_jax.data.chat_format import ChatFormat
from llm_jax.data.conversation import conversation_tokens
from llm_jax.data.file_tokenizer import FileTokenizer
from tests.parity.test_tokenizers import TEMPLATES, TURNS
from tests.test_file_tokenizer import byte_fallback, byte_level, unigram

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
