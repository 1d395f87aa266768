"""What `train --depth` does: derives a run's settings by `training.depth`, and prints them first."""

from collections.abc import Callable, Collection, Sequence

from rich.table import Table

from llm_jax.base.terminal import console
from llm_jax.base.tree import count_parameters
from llm_jax.config.run import Config
from llm_jax.model.decoder import abstract_params
from llm_jax.planning.depth_rules import Derived, derive_model, derive_run, with_derived
from llm_jax.runs import data
from llm_jax.training.throughput import flops_per_token


def sized_config(
    config: Config, depth: int, given: Collection[str], *, timed: bool, report: Callable[[str], None]
) -> Config:
    """Return the configuration of a run of this depth, in which all that the user gave is as given.

    Args:
        config: the user's.
        depth: number of layers.
        given: settings that the user gave.
        timed: whether a time will decide about steps and schedule.
        report: gets one line a remark.

    Raises:
        UserError: depth or a setting beside it makes no sense.
        DataError: the text cannot be used.
    """
    rows = derive_model(depth, config, given)
    sized = with_derived(config, rows)
    material = data.gather(sized, report)
    model, text = material.config.model, len(material.store.tokens("train"))
    parameters = count_parameters(abstract_params(model))
    rows += derive_run(sized, given, parameters, text, timed=timed)
    sized = with_derived(config, rows)
    console(width=150).print(settings_table(f"depth {depth}", rows))
    if not timed:
        tokens = sized.train.steps * sized.train.batch_size * model.context_length
        report(
            f"depth {depth}: {parameters:,} parameters, {tokens:,} tokens "
            f"({tokens / parameters:.1f} a parameter, {tokens / text:.1f} epochs of {text:,}), "
            f"{tokens * flops_per_token(model):.1e} FLOPs"
        )
    return sized


def settings_table(title: str, rows: Sequence[Derived]) -> Table:
    """Return derived settings as a table, each with its rule and source."""
    table = Table("setting", "value", "rule", "source", title=title)
    for row in rows:
        value = f"{row.value:.4g}" if isinstance(row.value, float) else str(row.value)
        table.add_row(row.setting, value, row.rule, row.source)
    return table
