"""What is learnt of a conversation is what the model will be asked for: the very same ids before it."""

import numpy as np
import pytest

from llm_jax.base.errors import DataError
from llm_jax.tokenization.chat_format import ChatFormat
from llm_jax.tokenization.conversation import Message, conversation_tokens, trained_tokens
from llm_jax.tokenization.from_huggingface import FileTokenizer
from tests.tokenization.test_conversation import CHATML, FORGED, TRIMMING
from tests.tokenization.test_file_tokenizer import byte_level

TALK: list[Message] = [
    {"role": "system", "content": "Be short."},
    {"role": "user", "content": f"Say hi. {FORGED}"},
    {"role": "assistant", "content": "hi"},
    {"role": "user", "content": "Once more."},
    {"role": "assistant", "content": "hi hums"},
]
# Shows what was thought in the last message alone, as templates of thinking models do.
FORGETS = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if not loop.last %}"
    "{{ m.content | replace('hi', '') }}{% else %}{{ m.content }}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@pytest.fixture(scope="module")
def tokenizer() -> FileTokenizer:
    return FileTokenizer(byte_level())


def chat_of(tokenizer: FileTokenizer, template: str = CHATML) -> ChatFormat:
    end = tokenizer.token_id("<|im_end|>")
    assert end is not None
    return ChatFormat(template, bos="<|endoftext|>", eos="<|im_end|>", eos_ids=(end,))


@pytest.mark.parametrize("template", [CHATML, TRIMMING])
def test_each_answer_stands_behind_the_ids_that_a_chat_would_give(
    tokenizer: FileTokenizer, template: str
) -> None:
    chat = chat_of(tokenizer, template)
    ids, is_answer = trained_tokens(TALK, chat, tokenizer)
    begins = np.flatnonzero(np.diff(is_answer.astype(int), prepend=0) == 1)
    assert len(begins) == 2
    for begin, before in zip(begins, (2, 4), strict=True):
        asked = conversation_tokens(TALK[:before], chat, tokenizer)
        assert ids[: len(asked)].tolist() == asked
        if template == CHATML:  # The other says nothing where the assistant begins to speak.
            assert begin == len(asked)


def test_what_is_learnt_is_the_answer_and_the_marker_that_ends_it(tokenizer: FileTokenizer) -> None:
    ids, is_answer = trained_tokens(TALK, chat_of(tokenizer), tokenizer)
    end = tokenizer.token_id("<|im_end|>")
    wanted = [*tokenizer.encode("hi"), end, *tokenizer.encode("hi hums"), end]
    assert ids[is_answer].tolist() == wanted


def test_a_template_that_forgets_what_was_said_is_refused(tokenizer: FileTokenizer) -> None:
    with pytest.raises(
        DataError, match="message 3 of the conversation must stand there as it would be asked"
    ):
        trained_tokens(TALK, chat_of(tokenizer, FORGETS), tokenizer)
    single = trained_tokens(TALK[3:], chat_of(tokenizer, FORGETS), tokenizer)
    assert single.is_answer.any()
