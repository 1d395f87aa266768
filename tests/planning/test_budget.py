"""Runs planned for a time: from rates that are given, never from a clock."""

import dataclasses
import json
import math
from pathlib import Path

import pytest

from llm_jax.base.errors import UserError
from llm_jax.cli import command
from llm_jax.config.model import ModelConfig
from llm_jax.config.run import Config, OptimConfig, TrainConfig
from llm_jax.planning import by_time
from llm_jax.planning.time_budget import (
    LADDER,
    Costs,
    adopt_plan,
    choose_rung,
    is_sized,
    parse_time,
    plan_run,
    with_fall,
    with_size,
)
from llm_jax.runs.data import Materials
from llm_jax.train import train

pytestmark = pytest.mark.compiles

COSTS = Costs(elapsed=8, compile=6, step=0.01, evaluation=0.5, save=0.3, ending=4)


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("3m", 180), ("1h", 3600), ("1h30m", 5400), ("1m5s", 65)]
)
def test_times_are_read(text: str, seconds: int) -> None:
    assert parse_time(text) == seconds


@pytest.mark.parametrize("text", ["", "3", "0s", "-3m", "3 m", "1.5h", "30m1h", "3M", "m", "nan", "³m"])
def test_what_is_no_time_is_refused(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UserError, match="90s, 3m, 1h or 1h30m"):
        parse_time(text)
    with pytest.raises(SystemExit) as stop:
        command.run(train, [f"--time={text}"], takes_files=True)
    assert stop.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize("seconds", [30, 60, 180, 3600, 5400])
def test_a_plan_fills_its_time_and_no_more(seconds: int) -> None:
    plan = plan_run(Config(), seconds, COSTS)
    train = plan.config.train
    looks = -(-train.steps // train.eval_interval)
    wanted = 8 + 6 + 0.3 + 4 + train.steps * 0.01 + looks * 0.8
    assert plan.seconds == pytest.approx(wanted)
    assert 0.94 * seconds < plan.seconds <= seconds
    assert plan.tokens == train.steps * 4 * 16
    assert (looks - 1) * 0.8 <= 0.1 * seconds
    assert train.save_interval == train.eval_interval


def test_the_schedule_ends_with_the_steps() -> None:
    planned = plan_run(with_fall(Config()), 60, COSTS).config
    assert planned.optim.schedule == "wsd"
    assert 0 < planned.optim.warmup_steps <= planned.train.steps // 20
    own = Config(optim=OptimConfig(schedule="cosine", warmup_steps=7), train=TrainConfig(steps=9))
    kept = plan_run(with_fall(own), 60, COSTS).config.optim
    assert (kept.schedule, kept.warmup_steps) == ("cosine", 7)


def test_a_schedule_and_a_warm_up_that_are_given_stay_though_they_are_the_defaults() -> None:
    given = {"optim.schedule", "optim.warmup_steps"}
    planned = plan_run(with_fall(Config(), given), 60, COSTS, given).config
    assert (planned.optim.schedule, planned.optim.warmup_steps) == ("constant", 0)


def test_a_time_too_short_for_a_step_is_refused_with_one_that_is_not() -> None:
    with pytest.raises(UserError, match="give 30s or more"):
        plan_run(Config(), 15, COSTS)
    assert plan_run(Config(), 30, COSTS).config.train.steps > 0


def test_the_model_grows_with_the_time_and_is_bounded_by_the_text() -> None:
    parameters = [10**5, 10**6, 10**7]
    chosen = [choose_rung(parameters, [n * 1e4] * 3, 10**9) for n in (1, 10, 100, 10_000)]
    assert chosen == [0, 0, 1, 2]
    assert choose_rung(parameters, [1e12] * 3, 20_000) == 1
    assert choose_rung(parameters, [0] * 3, 1) == 0


def test_rungs_are_valid_and_grow() -> None:
    sized = [with_size(Config(), size) for size in LADDER]
    widths = [config.model.d_model**2 * config.model.num_layers for config in sized]
    assert widths == sorted(set(widths))


def test_a_size_that_the_user_chose_is_seen() -> None:
    assert not is_sized(Config(optim=OptimConfig(learning_rate=1e-4)))
    assert is_sized(Config(model=ModelConfig(d_model=128)))
    assert is_sized(Config(model=ModelConfig(d_ff=100)))
    assert is_sized(Config(train=TrainConfig(batch_size=8)))
    assert is_sized(Config(), given={"model.d_model"})
    assert not is_sized(Config(), given={"model.norm", "optim.learning_rate"})


def test_a_plan_is_adopted_whole_and_nothing_else_with_it() -> None:
    planned = plan_run(with_size(Config(), LADDER[2]), 60, COSTS).config
    other = dataclasses.replace(planned, optim=dataclasses.replace(planned.optim, learning_rate=0.5))
    assert adopt_plan(Config(), planned) == planned
    assert adopt_plan(Config(), other) == planned


def test_what_is_given_beside_a_plan_is_kept_so_that_it_is_compared() -> None:
    planned = plan_run(with_size(Config(), LADDER[2]), 60, COSTS).config
    adopted = adopt_plan(Config(), planned, given={"model.d_model", "train.batch_size"})
    assert (adopted.model.d_model, adopted.train.batch_size) == (64, 4)
    assert adopted.model.num_layers == planned.model.num_layers


def test_a_planned_run_records_its_plan_and_goes_on_with_it(
    tmp_path: Path, prose: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = [f"--data.corpus={prose}", f"--data.prepared={tmp_path}", f"--train.run={tmp_path / 'run'}"]
    words += ["--train.sample_tokens=0", "--model.d_model=16"]
    costs = COSTS._replace(step=1)

    def measured(material: Materials) -> Costs:
        """Costs of any machine: what this one was found to take is looked at, and not planned with."""
        found = measure(material)
        assert all(0 < seconds < math.inf for seconds in found)
        return costs

    measure = by_time.measure
    monkeypatch.setattr(by_time, "measure", measured)

    def run(time: str) -> dict:
        with pytest.raises(SystemExit) as stop:
            command.run(train, [*words, f"--time={time}"], takes_files=True)
        assert stop.value.code == 0
        return json.loads(capsys.readouterr().out.splitlines()[-1])

    def refused(*more: str) -> str:
        with pytest.raises(SystemExit) as stop:
            command.run(train, [*words, *more, "--time=5h"], takes_files=True)
        assert stop.value.code == 2
        return capsys.readouterr().err

    first = run("30s")
    saved = json.loads((tmp_path / "run" / "config.json").read_text())
    assert saved["model"]["d_model"] == 16
    assert saved["train"]["steps"] == first["step"] == plan_run(Config(), 30, costs).config.train.steps
    assert saved["optim"]["schedule"] == "wsd"
    assert first["time"]["wanted"] == 30
    assert first["time"]["took"] > 0
    again = run("5h")
    assert again["step"] == first["step"]
    assert "model.num_layers: 8 -> 3" in refused("--model.num_layers=3")
    assert "train.batch_size: 4 -> 9" in refused("--train.batch_size=9")
    assert "optim.warmup_steps: 0 -> 2" in refused("--optim.warmup_steps=2")
    assert "model.num_layers: 8 -> 2" in refused("--depth=2")
