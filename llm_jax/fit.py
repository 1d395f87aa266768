"""Command: `llm-jax fit DATA`."""

import dataclasses
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from llm_jax.base.terminal import only_show, say, say_result
from llm_jax.cli import command
from llm_jax.config.effects import settle
from llm_jax.config.rules import Whole, require
from llm_jax.config.run import Config


def fit(
    data: Path,
    /,
    *,
    show_examples: Whole = 0,
    config: Annotated[Config, Parameter(name="*")] = Config(),
    given: command.Given = command.NOTHING_GIVEN,
) -> None:
    """Train a model to tell the labels of texts, or of the words in them, and say how well it does.

    The file is looked at: task, columns, split and all settings follow from it, each in a table with its
    rule; what you give stays. Copies of a text are left out, so that no split knows another's. At the end the
    best checkpoint is asked for the labels of texts that neither training nor validation had.

    Examples:
      llm-jax fit messages.csv
      llm-jax fit treebank.conllu --label upos --run runs/tagger

    A table (.csv, .tsv, .jsonl, .json, .parquet; gzip too) has a row for each text; where no column is
    plainly the text, all but the label's are read together. A treebank (.conllu, .iob2) has a label for each
    word: entity, upos or xpos, or segment, whether a character begins a word.

    --from DIR starts from a model that continues texts, a run or an import; without it, a small model is
    trained from random weights. Like `train`, it goes on where it was stopped.

    Parameters
    ----------
    data:
        The file with labelled texts.
    show_examples:
        Print so many of the first rows as the model reads them, each token with the label that is told there,
        and end without training.
    """
    require({"the data must be given once, without --data.corpus": "data.corpus" not in given})
    only_show()
    config = dataclasses.replace(config, data=dataclasses.replace(config.data, corpus=str(data)))
    from llm_jax.planning.by_labels import fitted_config

    config = fitted_config(config, given, report=say)
    config, given = settle(config, given, {}, report=say)
    if show_examples:
        _show_examples(config, show_examples)
        return
    from llm_jax.runs.train import run
    from llm_jax.training.loop import claim_device

    claim_device(say)
    summary = run(config, lambda *_: None, longer="train.steps" in given)  # the report comes after the scores
    test = _score(config, summary["run"]) if config.task.test_fraction else None
    say_result(summary | {"test": test})


def _score(config: Config, run: str) -> dict[str, Any]:
    """What the run's best checkpoint tells of the test split; shown, and kept in the run."""
    from llm_jax.cli.label_tables import show_scores
    from llm_jax.reports.gather import open_run, write_report
    from llm_jax.runs.label_record import score_and_keep

    found = score_and_keep(Path(run), say)
    write_report(Path(run), open_run(Path(run), lambda _: None), Path(run) / "report.html")
    say(f"report: {Path(run) / 'report.html'}")
    show_scores(found, f"{found['texts']:,} texts that neither training nor validation had")
    return {name: found[name] for name in ("accuracy", "macro_f1", "spans", "baselines") if name in found}


def _show_examples(config: Config, count: int) -> None:
    from llm_jax.cli.examples import show_rows
    from llm_jax.runs import data

    show_rows(data.gather(config, say), count)


if __name__ == "__main__":
    command.run(fit)
