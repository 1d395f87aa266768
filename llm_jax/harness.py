"""Command: `llm-jax harness DIR --tasks arc_easy,hellaswag`."""

import time
from pathlib import Path
from typing import Any

from llm_jax.base import strict_json
from llm_jax.base.errors import UserError, writing
from llm_jax.base.terminal import console, say_result
from llm_jax.cli import command
from llm_jax.config.rules import Step, Whole


def harness(
    directory: Path,
    /,
    *,
    tasks: str,
    step: Step = "best",
    include_path: Path | None = None,
    num_fewshot: Whole | None = None,
    limit: Whole | None = None,
    prefix: str | None = None,
    max_length: Whole | None = None,
    batch_tokens: Whole = 4096,
    cache: Path | None = None,
    out: Path | None = None,
) -> None:
    """Run tasks of lm-eval, the field's evaluation harness, on a trained model.

    Examples:
      llm-jax harness smollm2 --tasks arc_easy,piqa --num_fewshot 5 --limit 100

    Needs pip install "llm-jax[lm-eval]". lm-eval downloads its tasks' data, unless they are local.

    Parameters
    ----------
    directory:
        A run directory, or one that `convert import` made.
    tasks:
        Names of tasks or groups, with commas between them.
    include_path:
        A folder with tasks of your own, one YAML file each.
    num_fewshot:
        Solved examples before each question; the task's own number without it.
    limit:
        Only the first N questions of each task.
    prefix:
        The token before a text that has nothing before it, as the tokenizer writes it. Without it the start
        or end token that the checkpoint names, or else a line break.
    max_length:
        Maximum context in tokens; the model's context_length without it.
    batch_tokens:
        Tokens computed at once.
    cache:
        Path prefix of the answer cache, from which the same command resumes after Ctrl-C. Other weights
        never see it.
    out:
        A JSON file for all that lm-eval says of the run.
    """
    names = [name.strip() for name in tasks.split(",") if name.strip()]
    least = {"num_fewshot": (num_fewshot, 0), "limit": (limit, 1), "max_length": (max_length, 1)}
    rules = {
        f"{name} ({given}) must be at least {bound}": given is None or given >= bound
        for name, (given, bound) in (least | {"batch_tokens": (batch_tokens, 1)}).items()
    }
    rules["tasks must name at least one task"] = bool(names)
    rules[f"{include_path} must be a folder"] = include_path is None or include_path.is_dir()
    rules[f"the folder of {out} must be there"] = out is None or out.absolute().parent.is_dir()
    if broken := [rule for rule, holds in rules.items() if not holds]:
        raise UserError("; ".join(broken))
    _run(
        directory,
        step,
        names,
        {"prefix": prefix, "max_length": max_length, "batch_tokens": batch_tokens},
        {"include_path": include_path, "num_fewshot": num_fewshot, "limit": limit},
        cache,
        out,
    )


def _run(
    directory: Path,
    step: str,
    names: list[str],
    asking: dict[str, Any],
    running: dict[str, Any],
    cache: Path | None,
    out: Path | None,
) -> None:
    try:
        from llm_jax.language_model import harness_model
    except ImportError as error:
        raise UserError(f'lm-eval is missing ({error}): pip install "llm-jax[lm-eval]"') from None
    from llm_jax.language_model.model import load

    model = load(directory, step=step)
    asked = harness_model.asking(model, **asking)
    began = time.perf_counter()
    results = harness_model.run_tasks(asked, harness_model.Tasks(names, **running), cache)
    seconds = time.perf_counter() - began
    _show(results, f"{directory}, step {model.about['step']}")
    if out is not None:
        with writing(out):
            text = strict_json.dumps(results, indent=2, default=str, ensure_ascii=False) + "\n"
            out.write_text(text, encoding="utf-8", errors="backslashreplace")
    found = {"directory": str(directory), "results": results["results"], "n-shot": results["n-shot"]}
    say_result(found | {"limit": running["limit"], "seconds": round(seconds, 1)})


def _show(results: dict[str, Any], title: str) -> None:
    from rich.table import Table

    table = Table("task", "measure", "value", "standard error", title=title)
    for name, values in results["results"].items():
        for measure, value in values.items():
            what, _, kind = measure.partition(",")
            if not isinstance(value, int | float) or what.endswith("_stderr"):
                continue
            error = values.get(f"{what}_stderr,{kind}")
            shown = f"{error:.4f}" if isinstance(error, int | float) else ""
            table.add_row(name, what, f"{value:.4f}", shown)
    console().print(table)


if __name__ == "__main__":
    command.run(harness)
