"""Messages to token ids, by the model's template. What a message says is text, whatever it looks like.

transformers looks for markers such as `<|im_end|>` in the whole rendered text, so that a message can forge
one. Here a marker is one where the template wrote all of it; all between markers is encoded as text.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from llm_jax.base.errors import DataError, UserError
from llm_jax.tokenization.chat_format import ChatFormat
from llm_jax.tokenization.chat_template import render
from llm_jax.tokenization.from_huggingface import FileTokenizer
from llm_jax.tokenization.protocol import Tokenizer
from llm_jax.tokenization.traced_text import ANSWER, TEMPLATE, runs

Message = Mapping[str, str]  # "role" (system, user or assistant) and "content"


def conversation_tokens(messages: Sequence[Message], chat: ChatFormat, tokenizer: Tokenizer) -> list[int]:
    """Return ids of a conversation up to where the assistant begins to speak.

    The text is the one that transformers renders. Markers that an answer may contain, since they are no
    special tokens (`<think>`), stay whole in the assistant's messages.

    Args:
        messages: the conversation so far.
        chat: with a template.
        tokenizer: a `FileTokenizer` has markers; with any other, the whole text is plain.

    Raises:
        DataError: the template refuses these messages.
    """
    return _ids(messages, chat, tokenizer, speaks=True)


def _ids(messages: Sequence[Message], chat: ChatFormat, tokenizer: Tokenizer, *, speaks: bool) -> list[int]:
    """Ids of messages; where the assistant `speaks` next, up to where it begins to."""
    assert chat.template is not None
    text = render(chat.template, messages, add_generation_prompt=speaks, tokens=chat.tokens())
    if not isinstance(tokenizer, FileTokenizer):
        return tokenizer.encode("".join([text])).tolist()
    return tokenizer.encode_parts(split_at_markers(text, tokenizer.markers()))


class Trained(NamedTuple):
    """A conversation to learn from. N tokens."""

    ids: np.ndarray  # [N] int32
    is_answer: np.ndarray  # [N] bool, whether the assistant has to say it: its messages and what ends them


def trained_tokens(messages: Sequence[Message], chat: ChatFormat, tokenizer: Tokenizer) -> Trained:
    """Return ids of a whole conversation, in which before each of the assistant's messages stand the very ids
    that `conversation_tokens` gives for the messages before it.

    Args:
        messages: the conversation.
        chat: with a template.
        tokenizer: its tokenizer.

    Raises:
        DataError: the template refuses the messages, or shows earlier ones otherwise once later ones follow,
            so that what is learnt would not be what is asked for.
    """
    turns = [at for at, message in enumerate(messages) if message["role"] == "assistant"]
    ids = np.array(_ids(messages, chat, tokenizer, speaks=False), np.int32)
    is_answer = np.zeros(len(ids), bool)
    for at in turns:
        asked = conversation_tokens(messages[:at], chat, tokenizer)
        answered = _ids(messages[: at + 1], chat, tokenizer, speaks=False)
        for shown in (asked, answered):
            if ids[: len(shown)].tolist() != shown:
                raise DataError(
                    f"message {at + 1} of the conversation must stand there as it would be asked for, and "
                    "the model's template writes it otherwise once more follows"
                )
        end = len(answered)
        ends = [place for place in range(len(asked), end) if answered[place] in chat.eos_ids]
        is_answer[len(asked) : ends[-1] + 1 if ends else end] = True
    return Trained(ids, is_answer)


def split_at_markers(text: str, markers: Sequence[Mapping[str, Any]]) -> list[str | int]:
    """Return a text as its plain pieces, and the ids of the markers between them.

    Args:
        text: `Traced`; a marker is in it where the template wrote all of it, or an answer all of one that is
            not special.
        markers: as a tokenizer.json's `added_tokens`; the longest is found first, and one that says so takes
            the white space beside it or must be a word of its own, as in the library tokenizers.
    """
    known = {marker["content"]: marker for marker in markers}
    written = {
        TEMPLATE: _any_of(known),
        ANSWER: _any_of(content for content, marker in known.items() if not marker.get("special")),
    }
    plain = "".join([text])
    found = [
        (begin + match.start(), begin + match.end(), known[match[0]])
        for begin, end, origin in runs(text)
        if origin in written
        for match in written[origin].finditer(plain[begin:end])
    ]
    parts: list[str | int] = []
    at = 0
    for begin, end, marker in found:
        beside = plain[begin - 1 : begin] + plain[end : end + 1]
        if marker.get("single_word") and re.search(r"\w", beside):
            continue
        before, after = plain[at:begin], plain[end:]
        parts += [before.rstrip() if marker.get("lstrip") else before, marker["id"]]
        at = len(plain) - len(after.lstrip() if marker.get("rstrip") else after)
    parts.append(plain[at:])
    return [part for part in parts if part != ""]


def _any_of(contents: Iterable[str]) -> re.Pattern[str]:
    longest_first = sorted(filter(None, contents), key=len, reverse=True)
    return re.compile("|".join(map(re.escape, longest_first)) or "(?!)")  # which is never found


def fit(
    messages: Sequence[Message], count: Callable[[Sequence[Message]], int], room: int
) -> tuple[list[Message], int]:
    """Return the messages that fit into so many tokens, and how many exchanges are left out: the oldest.

    Args:
        messages: the last is the user's; the first may be the system's, which stays.
        count: tokens of messages.
        room: how many there may be.

    Raises:
        UserError: the last message alone is too long.
    """
    head = [message for message in messages[:1] if message["role"] == "system"]
    rest = list(messages[len(head) :])
    dropped = 0
    while (needed := count([*head, *rest])) > room:
        later = [at for at, message in enumerate(rest) if at and message["role"] == "user"]
        if not later:
            raise UserError(
                f"the message needs {needed:,} tokens with what stands around it, and there is room for "
                f"{room:,}; shorten it, or give a smaller --max_new_tokens"
            )
        rest, dropped = rest[later[0] :], dropped + 1
    return [*head, *rest], dropped
