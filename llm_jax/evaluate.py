"""Door: `python -m llm_jax.evaluate DIR [--text FILE]`."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from llm_jax.base.terminal import console, say, say_json
from llm_jax.cli import command
from llm_jax.config.run import MovedConfig


def evaluate(
    directory: Path,
    /,
    *,
    text: Path | None = None,
    moved: Annotated[MovedConfig, Parameter(name="*")] = MovedConfig(),
) -> None:
    """Scores a trained model on its whole validation split, or on a text.

    Nats per token, perplexity and bits per byte (which stay comparable between tokenizers), with the standard
    error.

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

    model = load(directory)
    if text is None:
        material = data.gather_again(model.about, str(directory), say, moved)
        score, floors = material.evaluate(model.params), material.floors()
    else:
        score, floors = data.score_text(model, text), {}
    table = Table("measure", "value", title=f"{directory}, step {model.about['step']}")
    table.add_row("loss, nats per token", f"{score.loss:.4f} +- {score.standard_error:.4f}")
    table.add_row("perplexity", f"{score.perplexity:.2f}")
    table.add_row("bits per byte", f"{score.bits_per_byte:.4f}")
    table.add_row("tokens scored", f"{score.tokens:,}")
    for name, nats in floors.items():
        table.add_row(f"floor: {name}", f"{nats:.4f} ({'beaten' if score.loss < nats else 'not beaten'})")
    console().print(table)
    say_json({"directory": str(directory), **score._asdict(), "floors": floors})


if __name__ == "__main__":
    command.run(evaluate)
