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
from llm_jax.display.browser import open_page
from llm_jax.display.words import Language, read_words


def report(
    *runs: Path,
    out: Path | None = None,
    png: Path | None = None,
    step: Step = "best",
    language: Language = "en",
    open_it: command.Open = False,
    moved: Annotated[MovedConfig, Parameter(name="*")] = MovedConfig(),
) -> None:
    """Rebuild a run's report, or compare several runs with the first on one page.

    A comparison has a table of all runs that sorts by any column, and says which model is better on the text
    that both held out, and whether the difference exceeds its noise, also between tokenizers.

    Examples:
      llm-jax report runs/mine
      llm-jax report runs/mine runs/exact --png pictures
      llm-jax report runs/* --out all.html

    Parameters
    ----------
    runs:
        Run directories: one for its report, two or more for a comparison; what is no run is left out of one.
    out:
        The page to write; RUN/report.html, or comparison.html for several runs.
    png:
        A folder for the page's pictures as PNG files, whose words are English.
    language:
        Language of the page's sentences: en or zh.
    open_it:
        Open the page in a browser.
    """
    if len(runs) == 0:
        raise UserError("report needs a run directory, or several to compare")
    page = out or (Path("comparison.html") if len(runs) > 1 else runs[0] / "report.html")
    if len(runs) > 1:
        summary = _compare(runs, page, png, language, moved, step)
    else:
        summary = _report(runs[0], page, png, language, moved, step)
    say(f"page: {page}")
    if open_it:
        open_page(page, say)
    say_result({"page": str(page), **summary})


def _report(
    run: Path, out: Path, png: Path | None, language: Language, moved: MovedConfig, step: str
) -> dict:
    from llm_jax.reports.gather import open_run, write_report
    from llm_jax.reports.run_page import diagnosis, last_score, run_cards

    words = read_words("reports", "en")
    with shown("making the report"):
        facts = write_report(run, open_run(run, say, moved, step), out, png, language)
    for card in run_cards(facts, words):
        say(f"{card.label}: {card.number}" + (f" ({card.note})" if card.note else ""))
    if line := diagnosis(facts.entries, facts.baselines, words):
        say(line)
    for line in facts.missing:
        say(f"left out: {line}")
    damaged = [step for step, _, fault in facts.checkpoints if fault]
    return {"run": str(run), **last_score(facts.entries), "damaged_checkpoints": damaged}


def _compare(
    runs: tuple[Path, ...], out: Path, png: Path | None, language: Language, moved: MovedConfig, step: str
) -> dict:
    from llm_jax.reports.compare import kept_runs, short_names, write_comparison
    from llm_jax.reports.comparison_page import Refused, verdict

    with shown("comparing"):
        pairs = write_comparison(runs, out, png, say, moved, step, language)
    first, words = short_names(kept_runs(runs))[0], read_words("reports", "en")
    for pair in pairs:
        refused = isinstance(pair, Refused)
        say(f"{pair.name} is not compared: {pair.reason}" if refused else verdict(pair, first, words))
    return {"first": first, "pairs": [pair._asdict() for pair in pairs]}


if __name__ == "__main__":
    command.run(report)
