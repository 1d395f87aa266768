"""What `train` runs where nothing says how: configs/first.toml, made to fit an own text."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llm_jax.base.terminal import say
from llm_jax.config.load import first_layer
from llm_jax.config.run import DataConfig


def _suited(data: DataConfig) -> Mapping[str, Any]:
    """What suits an own text, in a run named after it."""
    from llm_jax.data.corpora import read_corpus  # numpy, which --help is shown without
    from llm_jax.planning.text_rules import settings_for

    if data.corpus == DataConfig().corpus:
        return {}
    found = read_corpus(data.corpus, downloads=data.downloads, errors=data.errors, report=lambda _: None)
    settings, said = settings_for(found.text)
    say(f"settings for {found.name}, which you can all change: {said}")
    return settings | {"train": {**settings["train"], "run": str(Path("runs") / found.name)}}


FIRST_RUN = first_layer(("depth", "time", "train.init_from"), _suited)
