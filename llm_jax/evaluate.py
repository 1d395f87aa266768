"""Command: `llm-jax evaluate DIR [--text FILE]`."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from llm_jax.base.terminal import console, say, say_result
from llm_jax.cli import command
from llm_jax.config.rules import Step
from llm_jax.config.run import MovedConfig


def evaluate(
    directory: Path,
    /,
    *,
    text: Path | None = None,
    step: Step = "best",
    moved: Annotated[MovedConfig, Parameter(name="*")] = MovedConfig(),
) -> None:
    """Score a trained model on its whole validation split, or on a text.

    Nats per token, perplexity and bits per byte (which stay comparable between tokenizers), with the standard
    error.

    Examples:
      llm-jax evaluate runs/mine
      llm-jax evaluate runs/mine --text other_book.txt

    Parameters
    ----------
    directory:
        A run directory, or one that `convert import` made.
    text:
        A text file or folder (gzip too) to score instead of the validation split.
    """
    from rich.table import Table

    from llm_jax.language_model.model import load
    from llm_jax.runs import data
    from llm_jax.tasks.language_modelling import LANGUAGE_MODELLING
    from llm_jax.tasks.saved import read_saved

    if text is None:
        _, params, about = read_saved(directory, step, say)
        material = data.gather_again(about, str(directory), say, moved)
        score, baselines, metrics = material.evaluate(params), material.baselines(), material.task.metrics
    else:
        model = load(directory, step=step, report=say)
        score, baselines, about = data.score_text(model, text)._asdict(), {}, model.about
        metrics = LANGUAGE_MODELLING.metrics
    table = Table("measure", "value", title=f"{directory}, step {about['step']}")
    for metric in metrics:
        if shown := metric.shown(score):
            table.add_row(metric.label, " ".join(filter(None, shown)))
    if "tokens" in score:
        table.add_row("tokens scored", f"{score['tokens']:,}")
    for name, nats in baselines.items():
        table.add_row(
            f"baseline: {name}", f"{nats:.4f} ({'beaten' if score['loss'] < nats else 'not beaten'})"
        )
    console().print(table)
    say_result({"directory": str(directory), "step": about["step"], **score, "baselines": baselines})


if __name__ == "__main__":
    command.run(evaluate)
