"""Command: `llm-jax explain [DIR|CONFIG.toml] [--text ...]`."""

import time
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from llm_jax.base.bars import shown
from llm_jax.base.terminal import console, say, say_result
from llm_jax.cli import command
from llm_jax.config.rules import Step
from llm_jax.config.run import MovedConfig
from llm_jax.display.browser import open_page
from llm_jax.display.words import Language, read_words


def explain(
    source: Path | None = None,
    /,
    *,
    text: str | None = None,
    step: Step = "best",
    language: Language = "en",
    out: Path | None = None,
    open_it: command.Open = False,
    moved: Annotated[MovedConfig, Parameter(name="*")] = MovedConfig(),
) -> None:
    """Show a model tensor by tensor, from the text to the loss, in the terminal and as a page of its own.

    Without a directory it shows a fresh, untrained model of the tutorial.

    Examples:
      llm-jax explain
      llm-jax explain runs/first --text "The salesperson listens."

    Parameters
    ----------
    source:
        A run directory, or one that `convert import` made, or a configuration for an untrained model.
    text:
        What the x-ray looks at, cut to the context; without it, the beginning of the held-out text.
    language:
        Language of the sentences: en or zh.
    out:
        The page to write; explain.html in the directory, or here for an untrained model.
    open_it:
        Open the page in a browser.
    """
    from llm_jax.display.page import write_page
    from llm_jax.training.head import cross_entropy
    from llm_jax.walkthrough.gather import find_subject, label, make_lesson, next_batch, text_xray
    from llm_jax.walkthrough.lesson import require_told
    from llm_jax.walkthrough.page import explain_page
    from llm_jax.walkthrough.stages import stages
    from llm_jax.walkthrough.terminal import tell

    began = time.perf_counter()
    words = read_words("walkthrough", language)
    with shown("looking into the model"):
        subject = find_subject(source, say, moved, step)
        require_told(subject.config.model)
        lesson = make_lesson(subject, next_batch(subject))
    all_stages = stages(lesson, cross_entropy)
    kind = "untrained" if subject.step is None else "trained"
    about = words["page"][kind].format(directory=source, step=subject.step)
    with shown("x-ray of the text"):
        xray = text_xray(subject, text)
    tell(console(), lesson, all_stages, xray, words)
    html = explain_page(
        lesson,
        all_stages,
        label=lambda token: label(subject.tokenizer, token),
        words=words,
        language=language,
        about=about,
        xray=xray,
    )
    if out is None:
        out = (source if source is not None and source.is_dir() else Path()) / "explain.html"
    write_page(out, html)
    say(f"page: {out}")
    if open_it:
        open_page(out, say)
    summary = {"page": str(out), "bytes": out.stat().st_size, "stages": len(all_stages)}
    seconds = round(time.perf_counter() - began, 1)
    say_result(summary | {"loss": float(lesson.nats.mean()), "seconds": seconds})


if __name__ == "__main__":
    command.run(explain)
