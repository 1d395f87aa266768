"""What `train` runs where no file says how: configs/first.toml, made to fit an own text; or, where the run's
directory holds a run, that one's own settings.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llm_jax.base.errors import UserError
from llm_jax.base.json_lines import read_object
from llm_jax.base.terminal import say
from llm_jax.config.load import config_from_dict, first_layer
from llm_jax.config.run import Config

_RUNS = Path("runs")
_FIRST = _RUNS / "first"  # of configs/first.toml


def _suited(config: Config, run: Path | None) -> Mapping[str, Any]:
    """The settings of the run that is there; else those that suit an own text, in a run named after it."""
    from llm_jax.data import corpora  # numpy, which --help is shown without
    from llm_jax.planning.text_rules import settings_for

    if config.data.corpus == Config().data.corpus:
        return _kept(run or _FIRST)
    if config.data.corpus in corpora.STANDARD_INPUT and not corpora.is_given_input():
        run = run or _RUNS / corpora.STDIN
        return _kept(run) or {"train": {"run": str(run)}}
    found = corpora.configured_corpus(config.data, lambda _: None)
    run = run or _RUNS / found.name
    if kept := _kept(run):
        return kept
    settings, said = settings_for(found.text)
    say(f"settings for {found.name}, which you can all change: {said}")
    return settings | {"train": {**settings["train"], "run": str(run)}}


def _kept(run: Path) -> dict[str, Any]:
    """What a run that can be gone on with has recorded of its settings; nothing where there is none."""
    from llm_jax.checkpoints.step_files import checkpoint_directory, saved_steps

    kept = read_object(run / "config.json")
    if not kept or not saved_steps(checkpoint_directory(run)):
        return {}
    try:
        config_from_dict(kept, str(run))
    except UserError:
        return {}
    say(f"settings: those that {run} was begun with, but for what is given")
    return kept | {"train": {**kept["train"], "run": str(run)}}


FIRST_RUN = first_layer(("depth", "time", "train.init_from"), _suited)
