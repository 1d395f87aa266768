"""Commands as tests call them, and the words for a tiny run."""

import json
from pathlib import Path
from typing import Any

import pytest

from llm_jax.cli import command

MODEL = ["--model.d_model=16", "--model.num_layers=2", "--model.num_heads=2", "--model.context_length=8"]


QUICK = ["--train.steps=12", "--train.eval_interval=6", "--train.save_interval=4", "--train.log_interval=1"]


def words_for(folder: Path, prose: Path, *more: str) -> list[str]:
    places = [
        f"--data.corpus={prose}",
        f"--data.prepared={folder / 'prepared'}",
        f"--train.run={folder / 'run'}",
    ]
    return [*MODEL, *QUICK, "--train.sample_tokens=12", *places, *more]


def run_command(function: Any, words: list[str], status: int = 0, **options: Any) -> None:
    with pytest.raises(SystemExit) as stop:
        command.run(function, words, **options)
    assert stop.value.code == status


def metrics_of(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
