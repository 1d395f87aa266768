"""Messages to token ids, by the model's template. What a message says is text, whatever it looks like.

transformers looks for markers such as `<|im_end|>` in the whole rendered text, so that a message can forge
one. Here a private character, which is nowhere else, is put into the messages before they are rendered, so
that no marker stands in them or reaches into them. What is a marker after that, the template wrote; the
character is taken out again, and all between markers is encoded as text.
"""

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from llm_jax.data.chat_format import ChatFormat
from llm_jax.data.chat_template import render
from llm_jax.data.file_tokenizer import FileTokenizer
from llm_jax.data.tokenizers import Tokenizer
from llm_jax.errors import DataError, UserError

Message = Mapping[str, str]  # "role" (system, user or assistant) and "content"
_PRIVATE = range(0xF0000, 0xFFFFE)


def conversation_tokens(messages: Sequence[Message], chat: ChatFormat, tokenizer: Tokenizer) -> list[int]:
    """Ids of a conversation up to where the assistant begins to speak.

    The text is the one that transformers renders, but for templates that do something else with a message in
    which a marker stands: they are given it with the marker broken. Markers that an answer may contain,
    since they are no special tokens (`<think>`), stay whole in the assistant's messages.

    Args:
        messages: the conversation so far.
        chat: with a template.
        tokenizer: a `FileTokenizer` has markers; with any other, the whole text is plain.

    Raises:
        DataError: the template refuses these messages.
    """
    assert chat.template is not None
    markers = tokenizer.markers() if isinstance(tokenizer, FileTokenizer) else []
    markers = [marker for marker in markers if len(marker["content"]) > 1]  # one character cannot be broken
    special = {marker["content"] for marker in markers if marker.get("special")}
    every = {marker["content"] for marker in markers}
    contents = [message["content"] for message in messages]
    private = _private_character([chat.template, chat.bos or "", chat.eos or "", *contents])
    guarded = []
    for message in messages:
        forged = special if message["role"] == "assistant" else every
        guarded.append({**message, "content": _guard(message["content"], private, forged)})
    text = render(
        chat.template,
        guarded,
        add_generation_prompt=True,
        bos_token=chat.bos or "",
        eos_token=chat.eos or "",
    )
    if not isinstance(tokenizer, FileTokenizer):
        return tokenizer.encode(text.replace(private, "")).tolist()
    return tokenizer.encode_parts(split_at_markers(text, markers, private))


def split_at_markers(text: str, markers: Sequence[Mapping[str, Any]], private: str) -> list[str | int]:
    """A text as its plain pieces, without the private character, and the ids of the markers between them.

    Args:
        text: rendered from guarded messages.
        markers: as a tokenizer.json's `added_tokens`; the longest is found first, and one that says so takes
            the white space beside it or must be a word of its own, as in the library tokenizers.
        private: the character that was put into messages.
    """
    if not markers:
        return [text.replace(private, "")]
    found = re.compile("|".join(map(_pattern, sorted(markers, key=lambda m: -len(m["content"])))))
    ids = {marker["content"]: marker["id"] for marker in markers}
    parts: list[str | int] = []
    end = 0
    for match in found.finditer(text):
        word = match[0] if match[0] in ids else match[0].strip()
        parts += [text[end : match.start()].replace(private, ""), ids[word]]
        end = match.end()
    parts.append(text[end:].replace(private, ""))
    return [part for part in parts if part != ""]


def fit(
    messages: Sequence[Message], count: Callable[[Sequence[Message]], int], room: int
) -> tuple[list[Message], int]:
    """The messages that fit into so many tokens, and how many exchanges are left out: the oldest.

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


def _private_character(texts: Sequence[str]) -> str:
    used = set().union(*texts)
    free = next((chr(code) for code in _PRIVATE if chr(code) not in used), None)
    if free is None:
        raise DataError("the messages must leave one character of Unicode's private plane 15 unused")
    return free


def _guard(content: str, private: str, forged: Collection[str]) -> str:
    """The content with the character around it, inside the white space that a template may strip, and in
    every marker.
    """
    body = content.strip()
    if not body:
        return content
    before, after = content.split(body, 1)
    if forged:
        begins = "|".join(map(re.escape, sorted(forged)))
        body = re.sub(f"(?=(?:{begins}))(.)", rf"\1{private}", body, flags=re.DOTALL)
    return f"{before}{private}{body}{private}{after}"


def _pattern(marker: Mapping[str, Any]) -> str:
    word = re.escape(marker["content"])
    if marker.get("single_word"):
        word = rf"(?<!\w){word}(?!\w)"
    left, right = (r"\s*" if marker.get(side) else "" for side in ("lstrip", "rstrip"))
    return left + word + right
