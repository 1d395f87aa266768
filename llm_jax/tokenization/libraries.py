"""The one way into the libraries of tokenizers (tiktoken, tokenizers), which are programs in Rust.

Their panics are no `Exception`, and while one of them works Python hears no Ctrl-C. So every fault becomes a
`DataError`, and what may take long runs in a thread beside the one that listens.
"""

import threading
from collections.abc import Callable
from typing import Any, TypeVar

from llm_jax.base.errors import DataError

Given = TypeVar("Given")
LONG = 1 << 17  # characters from which a call may take a noticeable part of a second


def call_library(doing: str, function: Callable[..., Given], *arguments: Any, **options: Any) -> Given:
    """Return what a function of a library gives.

    Args:
        doing: completes "the tokenizer's library could not".
        function: called with all that follows.

    Raises:
        DataError: it failed, in whatever way.
    """
    try:
        return function(*arguments, **options)
    except (KeyboardInterrupt, SystemExit, MemoryError):
        raise
    except BaseException as error:
        raise DataError(f"the tokenizer's library could not {doing}: {one_line(error)}") from error


def call_on_text(
    doing: str, function: Callable[..., Given], text: str, *arguments: Any, **options: Any
) -> Given:
    """Return what a function of a library gives for a text, which may be long.

    Args:
        doing: completes "the tokenizer's library could not", before "a text of N characters".
        function: called with the text and all that follows; Ctrl-C is heard while it works on a long one, if
            it lets other threads run.
        text: the text.

    Raises:
        DataError: it failed, in whatever way.
    """
    what = f"{doing} a text of {len(text):,} characters that begins {text[:20]!r}"
    call = _beside if len(text) > LONG else _here
    return call_library(f"{what}; leave out what is odd in it", call, function, text, *arguments, **options)


def one_line(error: BaseException) -> str:
    """Return what an error says, cut to 200 characters."""
    return " ".join(str(error).split())[:200] or type(error).__name__


def _here(function: Callable[..., Given], *arguments: Any, **options: Any) -> Given:
    return function(*arguments, **options)


def _beside(function: Callable[..., Given], *arguments: Any, **options: Any) -> Given:
    """The function in a thread that is left alone when this one is interrupted."""
    given: list[Given] = []
    failed: list[BaseException] = []

    def work() -> None:
        try:
            given.append(function(*arguments, **options))
        except BaseException as error:  # noqa: BLE001 - raised by the thread that waits
            failed.append(error)

    thread = threading.Thread(target=work, daemon=True)
    try:
        thread.start()
    except RuntimeError:  # no more threads are to be had
        return function(*arguments, **options)
    while thread.is_alive():
        thread.join(0.2)
    if failed:
        raise failed[0]
    return given[0]
