"""Several runs set beside the first one: their models scored on the same text, and the page about it."""

from collections.abc import Callable, Sequence
from pathlib import Path

from llm_jax.base.errors import UserError
from llm_jax.base.json_lines import read_lines
from llm_jax.base.tree import count_parameters, flatten
from llm_jax.checkpoints.reader import Step
from llm_jax.config.load import to_dict
from llm_jax.config.run import Config, MovedConfig
from llm_jax.display.page import write_page
from llm_jax.evaluation.compare import Scored, compare
from llm_jax.model.decoder import abstract_params
from llm_jax.reports.comparison_page import Pair, Refused, Side, comparison_page, comparison_pictures
from llm_jax.reports.gather import open_run, samples, write_pictures


def write_comparison(
    runs: Sequence[Path],
    out: Path,
    png: Path | None,
    report: Callable[[str], None],
    moved: MovedConfig = MovedConfig(),
    step: Step = "best",
) -> list[Pair | Refused]:
    """Writes the page that sets runs beside the first one; gives what each pair has shown.

    Raises:
        UserError: a directory is no run, or a file cannot be written.
    """
    opened = [open_run(run, report, moved, step) for run in runs]
    names = short_names(runs)
    scored = [
        one.material.scored(one.saved.params) if one.saved and one.material else "; ".join(one.missing)
        for one in opened
    ]
    sides = [
        Side(
            name,
            count_parameters(abstract_params(one.config.model)),
            read_lines(run / "metrics.jsonl", report=report),
            (samples(run, report) or [(0, "")])[-1][1],
        )
        for name, run, one in zip(names, runs, opened, strict=True)
    ]
    pairs = [
        _pair(names[0], name, scored[0], other) for name, other in zip(names[1:], scored[1:], strict=True)
    ]
    pictures = comparison_pictures(sides, pairs)
    settings = _differing_settings([one.config for one in opened])
    write_page(out, comparison_page(sides, pairs, settings, pictures))
    write_pictures(pictures, png)
    return pairs


def short_names(runs: Sequence[Path]) -> list[str]:
    """Names of runs on a page: as many last parts of their paths as tell them apart."""
    parts = [run.resolve().parts for run in runs]
    for count in range(1, max(map(len, parts))):
        names = ["/".join(part[-count:]) for part in parts]
        if len(set(names)) == len(set(parts)):
            return names
    return [str(run) for run in runs]


def _pair(first_name: str, name: str, first: Scored | str, other: Scored | str) -> Pair | Refused:
    """What the comparison shows, or why there is none; a text stands for a run without a score."""
    if isinstance(first, str):
        return Refused(name, first)
    if isinstance(other, str):
        return Refused(name, other)
    try:
        found = compare(first, other)
    except UserError as error:
        return Refused(name, str(error))
    better = name if found.difference < 0 else first_name if found.difference > 0 else None
    return Pair(name, **found._asdict(), better=better, exceeds_noise=found.exceeds_noise)


def _differing_settings(configs: Sequence[Config]) -> list[tuple[str, list[str]]]:
    tables = [dict(flatten(to_dict(config))) for config in configs]
    return [
        (path.replace("/", "."), [str(table[path]) for table in tables])
        for path in tables[0]
        if path != "train/run" and len({str(table[path]) for table in tables}) > 1
    ]
