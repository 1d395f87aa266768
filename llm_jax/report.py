"""Command: `llm-jax report RUN [RUN ...]`."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from llm_jax.base.bars import shown
from llm_jax.base.errors import UserError
from llm_jax.base.terminal import say, say_result
from llm_jax.cli import command
from llm_jax.config.rules import Step
from llm_jax.config.run import MovedConfig


def report(
    *runs: Path,
    out: Path | None = None,
    png: Path | None = None,
    step: Step = "best",
    moved: Annotated[MovedConfig, Parameter(name="*")] = MovedConfig(),
) -> None:
    """Rebuilds a run's report, or compares several runs with the first on one page.

    A comparison says which model is better on the text that both held out, and whether the difference exceeds
    its noise, also between tokenizers.

    Examples:
      llm-jax report runs/mine
      llm-jax report runs/mine runs/exact --png pictures

    Parameters
    ----------
    runs:
        Run directories: one for its report, two or more for a comparison.
    out:
        The page to write; RUN/report.html, or comparison.html for several runs.
    png:
        A folder for the page's pictures as PNG files.
    """
    if len(runs) == 0:
        raise UserError("report needs a run directory, or several to compare")
    if len(runs) > 1:
        _compare(runs, out or Path("comparison.html"), png, moved, step)
    else:
        _report(runs[0], out or runs[0] / "report.html", png, moved, step)


def _report(run: Path, out: Path, png: Path | None, moved: MovedConfig, step: str) -> None:
    from llm_jax.reports.gather import open_run, write_report
    from llm_jax.reports.run_page import last_score, run_cards

    with shown("making the report"):
        facts = write_report(run, open_run(run, say, moved, step), out, png)
    for card in run_cards(facts):
        say(f"{card.label}: {card.number}" + (f" ({card.note})" if card.note else ""))
    for line in facts.missing:
        say(f"left out: {line}")
    damaged = [step for step, _, fault in facts.checkpoints if fault]
    say(f"page: {out}")
    summary = {"page": str(out), "run": str(run), **last_score(facts.entries)}
    say_result(summary | {"damaged_checkpoints": damaged})


def _compare(runs: tuple[Path, ...], out: Path, png: Path | None, moved: MovedConfig, step: str) -> None:
    from llm_jax.reports.compare import short_names, write_comparison
    from llm_jax.reports.comparison_page import Refused, verdict

    first = short_names(runs)[0]
    with shown("comparing"):
        pairs = write_comparison(runs, out, png, say, moved, step)
    for pair in pairs:
        refused = isinstance(pair, Refused)
        say(f"{pair.name} is not compared: {pair.reason}" if refused else verdict(pair, first))
    say(f"page: {out}")
    say_result({"page": str(out), "first": first, "pairs": [pair._asdict() for pair in pairs]})


if __name__ == "__main__":
    command.run(report)
