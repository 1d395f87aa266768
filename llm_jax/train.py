"""Door: `python -m llm_jax.train [CONFIG.toml ...] [--section.field VALUE ...]`."""

from typing import Annotated

from cyclopts import Parameter

from llm_jax import command
from llm_jax.config import Config


def train(*, config: Annotated[Config, Parameter(name="*")] = Config()) -> None:
    """Trains a decoder on a text: prepares tokens, trains, evaluates, samples, saves; goes on where it was
    stopped.

    Values come from the TOML files, the last one first, then from the options. The defaults are
    configs/tutorial.toml. A run directory that already holds a run of the same configuration is continued;
    Ctrl-C and SIGTERM save first (exit status 75).

    Example: python -m llm_jax.train configs/tutorial.toml --data.corpus my_book.txt --train.run runs/mine
    """
    from llm_jax import running

    running.run(config)


if __name__ == "__main__":
    command.run(train, takes_files=True)
