"""RUN/labels.json: what a run's best checkpoint tells of texts that it never saw."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from llm_jax.base import strict_json
from llm_jax.base.files import made_whole
from llm_jax.base.json_lines import read_object
from llm_jax.runs.data import gather_again
from llm_jax.tasks.label_scores import score_split
from llm_jax.tasks.saved import read_saved

FILE = "labels.json"
_NEEDED = {"texts", "rows", "labels", "accuracy", "macro_f1", "by_label", "confusion", "baselines", "worst"}


def read_scores(run: Path) -> dict[str, Any]:
    """Return what `score_and_keep` wrote; empty where there is nothing, or not all of it."""
    found = read_object(run / FILE)
    return found if found.keys() >= _NEEDED else {}


def score_and_keep(run: Path, report: Callable[[str], None]) -> dict[str, Any]:
    """Return the scores of a run's best checkpoint on its test split, and write them beside it.

    Raises:
        CheckpointError, DataError: checkpoint or data cannot be read.
    """
    saved = read_saved(run, "best", report)
    material = gather_again(saved.about, str(run), lambda _: None)
    found = {"step": saved.about["step"]} | score_split(saved.params, material.config, material.store, report)
    with made_whole(run / FILE) as part:
        part.write_text(strict_json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return found
