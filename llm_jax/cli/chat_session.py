"""A conversation in the terminal: messages, answers that stream, and the commands that begin with a slash."""

import contextlib
import os
from collections.abc import Callable, Generator, Iterator, Sequence
from pathlib import Path
from typing import TextIO

from llm_jax.base import strict_json
from llm_jax.base.errors import UserError, writing
from llm_jax.base.files import made_whole
from llm_jax.base.terminal import remark, say, write
from llm_jax.config.decoding import SamplingConfig
from llm_jax.language_model.model import LanguageModel
from llm_jax.tokenization.chat_format import ChatFormat
from llm_jax.tokenization.conversation import Message, conversation_tokens, fit

HELP = """\
/reset        forget the conversation, keep the system message
/system TEXT  what the model is told before everything else; without TEXT nothing
/save FILE    the messages so far as JSON
/help         these lines
/exit         end (so does Ctrl-D); Ctrl-C stops an answer"""


class Conversation:
    """The messages so far, and the model that answers them."""

    def __init__(
        self,
        model: LanguageModel,
        chat: ChatFormat,
        *,
        system: str,
        max_new_tokens: int,
        sampling: SamplingConfig,
        seed: int,
        stop: Sequence[str] = (),
    ):
        self._model, self._chat = model, chat
        self._max_new_tokens, self._sampling, self._seed, self._stop = max_new_tokens, sampling, seed, stop
        self._system = system
        self._turns: list[Message] = []

    @property
    def messages(self) -> list[Message]:
        """All of them, the system's first."""
        first = [{"role": "system", "content": self._system}] if self._system else []
        return [*first, *self._turns]

    def reset(self) -> None:
        """Forget all but the system message."""
        self._turns = []

    def set_system(self, text: str) -> None:
        """Change the system message, with nothing else."""
        self._system = text

    def answer(self, text: str, remark: Callable[[str], None]) -> Generator[str, None, None]:
        """Return the answer to the user's next message, piece by piece. Where it is stopped, by Ctrl-C too,
        what was said until then is kept; a message that got no answer is not.

        Raises:
            UserError: the message is too long, or the template refuses it.
        """
        asked = [*self.messages, {"role": "user", "content": text}]
        room = self._model.config.context_length - self._max_new_tokens
        kept, dropped = fit(asked, lambda messages: len(self._tokens(messages)), room)
        if dropped:
            remark(f"the context is full: the oldest {_exchanges(dropped)} left out of what the model sees")
        said: list[str] = []
        try:
            for piece in self._model.stream(
                self._tokens(kept),
                max_new_tokens=self._max_new_tokens,
                sampling=self._sampling,
                seed=(self._seed + len(self._turns)) % 2**32,
                stop=self._stop,
            ):
                said.append(piece)
                yield piece
            said = said or [""]
        finally:
            if said:
                self._turns = [*self._turns, asked[-1], {"role": "assistant", "content": "".join(said)}]

    def _tokens(self, messages: Sequence[Message]) -> list[int]:
        return conversation_tokens(messages, self._chat, self._model.tokenizer)


def converse(conversation: Conversation, lines: Iterator[str], *, forgiving: bool) -> None:
    """Answer each line on standard output until they end; remarks go to standard error.

    Args:
        conversation: what it goes on with.
        lines: what the user types.
        forgiving: whether a mistake is shown and the conversation goes on (a person types), or ends it.
    """
    for line in lines:
        text = line.strip()
        try:
            if text == "/exit":
                return
            if text.startswith("/"):
                remark(obey(conversation, text))
            elif text:
                _answer(conversation, text, remark)
        except UserError as error:
            if not forgiving:
                raise
            remark(f"error: {error}", style="red")


def obey(conversation: Conversation, line: str) -> str:
    """Do what a line with a slash says; give a remark.

    Raises:
        UserError: there is no such command, or it cannot be done.
    """
    name, _, rest = line.partition(" ")
    argument = rest.strip()
    if name == "/help":
        return HELP
    if name == "/reset":
        conversation.reset()
        return "the conversation begins anew"
    if name == "/system":
        conversation.set_system(argument)
        return "the system message is set" if argument else "there is no system message"
    if name == "/save":
        if not argument:
            raise UserError("/save must have the name of a file: /save FILE")
        return save(conversation.messages, Path(os.path.expanduser(argument)))
    raise UserError(f"{name} must be one of /reset, /system, /save, /help, /exit")


def save(messages: Sequence[Message], path: Path) -> str:
    """Write messages as JSON, whole or not at all; give a remark.

    Raises:
        UserError: it cannot be written.
    """
    try:
        content = strict_json.dumps(list(messages), ensure_ascii=False, indent=2) + "\n"
        with writing(path), made_whole(path) as part:
            part.write_text(content, encoding="utf-8")
    except ValueError as error:  # no name of a file, or a text that no file can hold
        raise UserError(f"{path} cannot be written: {error}") from None
    return f"saved {len(messages)} messages to {path}"


def typed_lines(prompt: str) -> Iterator[str]:
    """Return lines of a person at a terminal, with editing and a history where there is readline; Ctrl-D ends
    them, Ctrl-C empties the line.
    """
    with contextlib.suppress(ImportError):
        import readline  # noqa: F401 - it changes what `input` can do
    while True:
        try:
            yield input(prompt)
        except EOFError:
            say()
            return
        except KeyboardInterrupt:
            say()


def piped_lines(stream: TextIO) -> Iterator[str]:
    """Return lines of a program or a file; UserError for bytes that are not UTF-8."""
    try:
        yield from stream
    except UnicodeDecodeError as error:
        raise UserError(f"standard input must be text in {error.encoding}") from None


def _answer(conversation: Conversation, text: str, remark: Callable[[str], None]) -> None:
    pieces = conversation.answer(text, remark)
    stopped = False
    try:
        for piece in pieces:
            write(piece)
    except KeyboardInterrupt:
        stopped = True
        pieces.close()
    write("\n")
    if stopped:
        remark("stopped")


def _exchanges(count: int) -> str:
    return "exchange is" if count == 1 else f"{count} exchanges are"
