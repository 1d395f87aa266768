"""Command: `llm-jax runs [DIR]`."""

from pathlib import Path

from llm_jax.base.terminal import console, say, say_result
from llm_jax.cli import command


def runs(folder: Path = Path("runs"), /) -> None:
    """List runs: the step that is saved, the loss, the best loss and the size on disk.

    Losses are those of the whole validation split, in nats per token.

    Examples:
      llm-jax runs

    Parameters
    ----------
    folder:
        A folder with run directories, or one of them.
    """
    from rich.table import Table

    from llm_jax.runs.listing import list_runs

    found = list_runs(folder)
    if not found:
        say(f"no runs in {folder}; llm-jax train makes runs")
    else:
        table = Table("run", *("step", "loss", "best", "at step", "size on disk"))
        for column in table.columns[1:]:
            column.justify = "right"
        for run in found:
            step = f"{run.step:,}" + ("" if run.steps in (None, run.step) else f" of {run.steps:,}")
            losses = [f"{loss:.3f}" if loss is not None else "" for loss in (run.loss, run.best)]
            at = "" if run.best_step is None else f"{run.best_step:,}"
            table.add_row(run.run, step, *losses, at, f"{run.bytes / 1e6:,.1f} MB")
        console(width=120).print(table)
    say_result({"runs": [run._asdict() for run in found]})


if __name__ == "__main__":
    command.run(runs)
