"""From a file of labelled texts to a run: its task, columns and settings, as `fit` shows them."""

import dataclasses
from collections.abc import Callable, Collection
from pathlib import Path

from llm_jax.base.errors import DataError
from llm_jax.base.terminal import console
from llm_jax.config.run import Config
from llm_jax.data.text_files import printable
from llm_jax.data.treebanks import holds_sentences
from llm_jax.planning.by_depth import settings_table
from llm_jax.planning.depth_rules import with_derived
from llm_jax.planning.label_rules import derive_fit
from llm_jax.tasks.label_data import read_labelled

_RUNS = Path("runs")


def fitted_config(config: Config, given: Collection[str], report: Callable[[str], None]) -> Config:
    """Return the configuration of a run on the file that is `data.corpus`, in which all that the user gave is
    as given; prints a table of what was derived.

    Args:
        config: the user's.
        given: settings that the user gave.
        report: gets one line a remark.

    Raises:
        DataError: the file cannot be used.
        UserError: a setting makes no sense beside the others.
    """
    path = Path(config.data.corpus)
    if path.is_dir():
        raise DataError(f"{printable(str(path))} must be a file of labelled texts, and is a folder")
    if "task.name" not in given:
        task = "tagging" if holds_sentences(path) else "classification"
        config = dataclasses.replace(config, task=dataclasses.replace(config.task, name=task))
    if "train.run" not in given:
        run = _RUNS / (path.name.partition(".")[0] or "fit")
        config = dataclasses.replace(config, train=dataclasses.replace(config.train, run=run))
    if "data.validation_fraction" not in given:
        config = dataclasses.replace(config, data=dataclasses.replace(config.data, validation_fraction=0.1))
    examples, _ = read_labelled(config, report)
    rows = derive_fit(config, given, examples)
    title = f"{printable(path.name)}: {len(examples):,} texts for {config.task.name}"
    console(width=110).print(settings_table(title, rows))
    return with_derived(config, rows)
