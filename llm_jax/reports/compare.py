"""Several runs set beside the first one: their models scored on the same text, and the page about it."""

from collections.abc import Callable, Sequence
from pathlib import Path

from llm_jax.base.errors import CheckpointError, UserError
from llm_jax.base.json_lines import read_history, read_lines
from llm_jax.base.tree import count_parameters, flatten
from llm_jax.checkpoints.reader import Step
from llm_jax.checkpoints.step_files import checkpoint_directory
from llm_jax.config.load import to_dict
from llm_jax.config.run import Config, MovedConfig
from llm_jax.display.page import write_page
from llm_jax.display.words import Language
from llm_jax.evaluation.compare import Scored, compare
from llm_jax.model.decoder import abstract_params
from llm_jax.reports.chart import with_tokens
from llm_jax.reports.comparison_page import Pair, Refused, Side, comparison_page, comparison_pictures
from llm_jax.reports.gather import open_run, samples, write_pictures
from llm_jax.runs import continuing
from llm_jax.tasks.by_name import find_task


def write_comparison(
    runs: Sequence[Path],
    out: Path,
    png: Path | None,
    report: Callable[[str], None],
    moved: MovedConfig = MovedConfig(),
    step: Step = "best",
    language: Language = "en",
) -> list[Pair | Refused]:
    """Write the page that sets runs beside the first one; give what each pair has shown.

    Raises:
        CheckpointError: a path is nothing, or fewer than two of them are runs.
        UserError: a file cannot be written.
    """
    left_out = [f"{run} is no run directory" for run in runs if run.exists() and not _is_run(run)]
    for line in left_out:
        report(f"left out: {line}")
    runs = kept_runs(runs)
    if len(runs) < 2:
        raise CheckpointError(f"report compares two runs or more, and {len(runs)} of those given is one")
    names = short_names(runs)
    sides, scored, configs = [], [], []
    for name, run in zip(names, runs, strict=True):  # one model at a time in memory
        side, score, config = _one(name, run, report, moved, step)
        sides.append(side)
        scored.append(score)
        configs.append(config)
    pairs = [
        _pair(names[0], name, scored[0], other) for name, other in zip(names[1:], scored[1:], strict=True)
    ]
    pictures = comparison_pictures(sides, pairs, language)
    settings = _differing_settings(configs)
    write_page(out, comparison_page(sides, pairs, settings, pictures, language, left_out))
    if png:
        write_pictures(pictures if language == "en" else comparison_pictures(sides, pairs), png)
    return pairs


def kept_runs(runs: Sequence[Path]) -> list[Path]:
    """Return those of the paths that are compared: what is there and is none is not."""
    return [run for run in runs if _is_run(run) or not run.exists()]


def _is_run(path: Path) -> bool:
    return (path / "config.json").exists() or checkpoint_directory(path).is_dir()


def _one(
    name: str, run: Path, report: Callable[[str], None], moved: MovedConfig, step: Step
) -> tuple[Side, Scored | str, Config]:
    """A run as the page has it, its score or why there is none, and its configuration."""
    opened = open_run(run, report, moved, step)
    config, history = opened.config, read_history(run / continuing.CHANGES)
    params = opened.saved.params if opened.saved else abstract_params(config.model)
    side = Side(
        name,
        count_parameters(params),
        with_tokens(read_lines(run / "metrics.jsonl", report=report), config, history),
        (samples(run, report) or [(0, "")])[-1][1],
        config.train.steps,
    )
    if not find_task(config.task).writes_text:
        return side, f"its task is {config.task.name}, which continues no text", config
    if opened.saved and opened.material:
        return side, opened.material.scored(opened.saved.params), config
    return side, "; ".join(opened.missing), config


def short_names(runs: Sequence[Path]) -> list[str]:
    """Return names of runs on a page: as many last parts of their paths as tell them apart."""
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
