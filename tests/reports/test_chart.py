"""The numbers that a page's script draws: those of the record, against steps, tokens and time."""

import json
import re

import pytest

from llm_jax.config.model import ModelConfig
from llm_jax.config.run import Config, TrainConfig
from llm_jax.reports.chart import points, with_tokens
from llm_jax.reports.run_page import RunFacts, run_page, run_pictures

pytestmark = pytest.mark.compiles


def test_tokens_follow_the_batch_as_it_was() -> None:
    config = Config(model=ModelConfig(context_length=8), train=TrainConfig(batch_size=4))
    changes = {"train.batch_size": [2, 4], "optim.learning_rate": [1, 2]}
    history = [
        {"step": 10, "changes": {"train.batch_size": [1, 2]}},
        {"step": 20, "changes": {"optim.learning_rate": [1, 2]}},
        {"step": 30, "changes": changes},
        {"step": 40, "changes": {"train.batch_size": ["many", 4]}},
    ]
    entries = [{"step": step} for step in (0, 5, 10, 15, 30, 31)]
    sequences = [0, 5, 10, 20, 50, 54]
    assert [entry["training_tokens"] for entry in with_tokens(entries, config, history)] == [
        8 * count for count in sequences
    ]
    assert [entry["training_tokens"] for entry in with_tokens(entries, config, [])] == [
        32 * entry["step"] for entry in entries
    ]


def test_a_long_curve_keeps_its_ends_and_its_peaks() -> None:
    entries = [{"step": n, "training_tokens": 2 * n, "elapsed_seconds": n / 10} for n in range(5000)]
    values = [1.0 + (n == 2345) - 0.5 * (n == 3210) for n in range(5000)]
    rows = points(entries, values)
    assert len(rows) <= 602
    assert rows[0][:2] == [0, 0]
    assert rows[-1][:3] == [4999, 9998, 499.9]
    assert [2345, 4690, 234.5, 2.0] in rows
    assert [3210, 6420, 321.0, 0.5] in rows


def test_the_page_holds_every_value_of_the_record_with_its_tokens_and_time(facts: RunFacts) -> None:
    page = run_page(facts, run_pictures(facts))
    charts = [json.loads(text) for text in re.findall(r'class="curve"[^>]*>(.*?)</script>', page)]
    assert len(charts) == 6
    (training,) = [line for line in charts[0]["lines"] if line["name"] == "training"]
    wanted = [entry for entry in facts.entries if entry.get("train_loss") is not None]
    assert [row[0] for row in training["points"]] == [entry["step"] for entry in wanted]
    assert [row[1] for row in training["points"]] == [entry["training_tokens"] for entry in wanted]
    assert [row[2] for row in training["points"]] == [entry["elapsed_seconds"] for entry in wanted]
    assert [row[3] for row in training["points"]] == pytest.approx(
        [entry["train_loss"] for entry in wanted], rel=1e-5
    )
    assert [name for name, _ in charts[0]["levels"]] == [
        name
        for name, nats in facts.baselines.items()
        if charts[0]["limits"][0] <= nats <= charts[0]["limits"][1]
    ]
