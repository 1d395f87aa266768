"""Command: `llm-jax chat DIR`."""

import dataclasses
import sys
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from llm_jax.base.errors import UserError
from llm_jax.base.terminal import remark
from llm_jax.cli import command
from llm_jax.config.decoding import SamplingConfig
from llm_jax.config.rules import Seed, Step, Whole, require


def chat(
    directory: Path,
    /,
    *,
    system: str = "",
    template: Path | None = None,
    step: Step = "best",
    max_new_tokens: Whole = 512,
    seed: Seed = 0,
    stop: tuple[str, ...] = (),
    sampling: Annotated[SamplingConfig, Parameter(name="*")] = SamplingConfig(),
) -> None:
    """Talk with a model in the terminal, by the model's own chat template.

    Commands: /reset, /system TEXT, /save FILE, /help, /exit. Ctrl-C stops an answer and keeps the
    conversation, Ctrl-D ends it. With input from a pipe each line is a message, and only answers are printed.
    What you type is text and nothing else: markers of the template in it mean nothing.

    Examples:
      llm-jax chat smollm2 --system "You answer in one sentence." --temperature 0.7

    Parameters
    ----------
    directory:
        A directory that `convert import` made of an open model, or a run directory with --template.
    system:
        What the model is told before everything else.
    template:
        A jinja2 file as Hugging Face's chat_template.jinja, instead of the model's own.
    max_new_tokens:
        Longest answer, in tokens. When the context is full, the oldest exchanges are left out.
    seed:
        The same seed and messages give the same answers.
    stop:
        End an answer before this text; may be given several times.
    """
    require(
        {
            f"max_new_tokens ({max_new_tokens}) must be at least 1": max_new_tokens >= 1,
            f"seed ({seed}) must be from 0 to 2**32 - 1": 0 <= seed < 2**32,
        }
    )
    from llm_jax.cli import chat_session
    from llm_jax.language_model.model import load
    from llm_jax.tokenization.chat_format import read_template

    own = read_template(template) if template else None
    model = load(directory, step=step)
    form = dataclasses.replace(model.chat_format, template=own) if own is not None else model.chat_format
    if form.template is None:
        raise UserError(
            f"the model in {directory} must have a chat template, but brings none; give one with "
            "--template FILE, or continue plain text with generate"
        )
    if max_new_tokens >= (context := model.config.context_length):
        raise UserError(
            f"max_new_tokens ({max_new_tokens}) must be below the model's context of {context} tokens; "
            "give a smaller --max_new_tokens"
        )
    conversation = chat_session.Conversation(
        model, form, system=system, max_new_tokens=max_new_tokens, sampling=sampling, seed=seed, stop=stop
    )
    if typing := sys.stdin.isatty():
        remark("/help lists the commands, Ctrl-C stops an answer, Ctrl-D ends.")
    lines = chat_session.typed_lines("> ") if typing else chat_session.piped_lines(sys.stdin)
    chat_session.converse(conversation, lines, forgiving=typing)


if __name__ == "__main__":
    command.run(chat)
