"""Messages as the text that a model of conversations was trained on, by the model's own jinja2 template.

A template is a program of somebody else's, which may run for ever or take all memory in one expression. So it
runs in a process of its own (`template_sandbox`) that lives on between conversations, and whose end is the
end of a template that goes beyond its limits.
"""

import atexit
import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache
from typing import Any

from llm_jax.base.errors import DataError
from llm_jax.tokenization.traced_text import Traced

_SECONDS = 1.0  # of processor time, and as much again for each million characters of messages
_WAITED = 20  # times as long is waited at most where other work takes the processor
_DIGITS = bytes.maketrans(b"012", bytes([0, 1, 2]))
_START = """
import sys
sys.path[:] = {path!r}
from llm_jax.tokenization.template_sandbox import serve
serve()
"""


def render(
    template: str,
    messages: Sequence[Mapping[str, str]],
    *,
    add_generation_prompt: bool,
    tokens: Mapping[str, str],
) -> Traced:
    """Return the conversation as one text, special tokens written out, with the origin of each character.

    Args:
        template: the model's template, from its tokenizer's configuration or its GGUF file.
        messages: each with `role` and `content`; the template sees them as they are.
        add_generation_prompt: whether the text ends where the assistant begins to speak.
        tokens: what the template knows by their names, such as `bos_token`.

    Raises:
        DataError: the template is damaged, refuses these messages, does what it may not, or takes too long or
            too much memory.
    """
    seen = [{str(key): str(value) for key, value in message.items()} for message in messages]
    characters = sum(len(value) for message in seen for value in message.values())
    asked = {
        "seconds": _SECONDS * (1 + characters / 1e6),
        "template": template,
        "messages": seen,
        "add_generation_prompt": add_generation_prompt,
        "tokens": dict(tokens),
    }
    answer = _process(os.getpid()).ask(asked)
    if "refused" in answer:
        raise DataError(f"the chat template could not be rendered: {answer['refused']}")
    return Traced(answer["text"], answer["origins"].encode().translate(_DIGITS))


@cache
def _process(owner: int) -> "_Sandbox":
    """The one of this process; a fork of it must not speak into the same pipe."""
    return _Sandbox()


class _Sandbox:
    """The process that renders: started when it is needed, and anew after a template ended it."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()
        atexit.register(self._end)

    def ask(self, asked: Mapping[str, Any]) -> dict[str, str]:
        """Return what the process answers, or {"refused"} with what became of it."""
        with self._lock:
            if self._process is None or self._process.poll() is not None:
                self._end()
                self._process = _started()
            process, answer = self._process, b""
            try:
                answer = _exchange(process, json.dumps(asked).encode() + b"\n", asked["seconds"] * _WAITED)
            finally:
                if not answer:  # After Ctrl-C, too: what was not fetched must not answer the next question.
                    self._end()
        if answer:
            return json.loads(answer)
        if process.returncode in (-signal.SIGPROF, -signal.SIGKILL):
            return {"refused": f"it takes more than {asked['seconds']:.0f} s"}
        return {"refused": f"it ends the process that renders it (status {process.returncode})"}

    def _end(self) -> None:
        if self._process is None:
            return
        process, self._process = self._process, None
        with suppress(subprocess.TimeoutExpired):
            process.wait(0.1)  # It may have ended by itself, and how, must not be lost.
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            with suppress(OSError):
                pipe.close() if pipe else None


def _started() -> "subprocess.Popen[bytes]":
    path = [place or os.getcwd() for place in sys.path]
    return subprocess.Popen(
        [sys.executable, "-I", "-c", _START.format(path=path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )


def _exchange(process: "subprocess.Popen[bytes]", question: bytes, seconds: float) -> bytes:
    """The line that answers another; empty where the process ends, or the time, before it is whole."""
    assert process.stdin
    assert process.stdout
    with suppress(BrokenPipeError):
        process.stdin.write(question)
        process.stdin.flush()
    answer, end, waiting = bytearray(), time.monotonic() + seconds, select.poll()
    waiting.register(process.stdout, select.POLLIN)
    while not answer.endswith(b"\n"):
        ready = waiting.poll(max(0, end - time.monotonic()) * 1000)
        piece = os.read(process.stdout.fileno(), 1 << 16) if ready else b""
        if not piece:
            return b""
        answer += piece
    return bytes(answer)
