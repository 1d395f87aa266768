"""What `train` runs where nothing says how: configs/first.toml, made to fit an own text."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llm_jax.base.json_lines import read_object
from llm_jax.base.terminal import say
from llm_jax.config.load import first_layer
from llm_jax.config.run import Config


def _suited(config: Config) -> Mapping[str, Any]:
    """What suits an own text, in a run named after it."""
    from llm_jax.data import corpora  # numpy, which --help is shown without
    from llm_jax.planning.text_rules import SETTINGS, settings_for

    if config.data.corpus == Config().data.corpus:
        return {}
    if config.data.corpus in corpora.STANDARD_INPUT and not corpora.is_given_input():
        own = Path("runs") / corpora.STDIN if config.train.run == Config().train.run else config.train.run
        before = read_object(own / "config.json")
        kept = {
            name: {each: before[name][each] for each in names} for name, names in SETTINGS.items() if before
        }
        return kept | {"train": kept.get("train", {}) | {"run": str(own)}}
    found = corpora.configured_corpus(config.data, lambda _: None)
    settings, said = settings_for(found.text)
    say(f"settings for {found.name}, which you can all change: {said}")
    return settings | {"train": {**settings["train"], "run": str(Path("runs") / found.name)}}


FIRST_RUN = first_layer(("depth", "time", "train.init_from"), _suited)
