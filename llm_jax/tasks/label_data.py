"""The data of tasks that tell labels: read, split and cut into tokens."""

from collections.abc import Callable

from llm_jax.config.run import Config
from llm_jax.data.label_files import read_examples
from llm_jax.data.label_splits import split_examples
from llm_jax.data.labelled import prepare_labelled
from llm_jax.data.store import Store
from llm_jax.tokenization.protocol import Tokenizer


def open_labelled(config: Config, report: Callable[[str], None], inherited: Tokenizer | None) -> Store:
    """Return the store of the labelled texts that a configuration names.

    Raises:
        DataError: they cannot be read, or are too few.
        UserError: the tokenizer cannot be had.
    """
    examples, source = read_examples(config, report)
    data, task = config.data, config.task
    splits = split_examples(examples, data.validation_fraction, task.test_fraction, task.split_seed, report)
    return prepare_labelled(config, splits, source, report, inherited)
