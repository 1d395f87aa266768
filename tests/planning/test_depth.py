"""One dial: from a depth to a whole configuration, by rules that are printed."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import pytest
from cyclopts import Parameter

from llm_jax.base.errors import UserError
from llm_jax.base.tree import count_parameters
from llm_jax.cli import command
from llm_jax.config.model import ModelConfig
from llm_jax.config.run import Config, DataConfig, OptimConfig, TrainConfig
from llm_jax.model.decoder import abstract_params
from llm_jax.planning.depth_rules import BASE_WIDTH, Derived, derive_model, derive_run, with_derived
from llm_jax.train import train

pytestmark = pytest.mark.compiles

DEPTHS = range(1, 49)
NOTHING: frozenset[str] = frozenset()


def a_run(
    depth: int,
    config: Config = Config(),
    given: frozenset[str] = NOTHING,
    *,
    parameters: int | None = None,
    tokens: int = 10**9,
    timed: bool = False,
) -> tuple[Config, list[Derived]]:
    rows = derive_model(depth, config, given)
    sized = with_derived(config, rows)
    body = 12 * sized.model.num_layers * sized.model.d_model**2 + 2 * 5000 * sized.model.d_model
    rows += derive_run(sized, given, parameters or body, tokens, timed=timed)
    return with_derived(config, rows), rows


def test_every_depth_gives_a_configuration_that_keeps_all_rules() -> None:
    for depth in DEPTHS:
        config, _ = a_run(depth)
        model = config.model
        assert (model.num_layers, model.d_model, model.head_dim) == (depth, 64 * depth, 64)
        assert model.d_model == model.num_heads * model.head_dim
        assert model.width_ratio == 64 * depth / BASE_WIDTH


def test_more_depth_is_more_of_everything() -> None:
    configs = [a_run(depth, tokens=10**13)[0] for depth in DEPTHS]
    for name in ("d_model", "num_heads", "mlp_width", "context_length"):
        values = [getattr(config.model, name) for config in configs]
        assert values == sorted(values), name
    tokens = [c.train.steps * c.train.batch_size * c.model.context_length for c in configs]
    assert tokens == sorted(tokens)
    batches = [config.train.batch_size * config.model.context_length for config in configs]
    assert batches[-1] > 50 * batches[0]


def test_what_the_table_says_is_what_runs() -> None:
    for depth in (1, 5, 20):
        config, rows = a_run(depth)
        assert len({row.setting for row in rows}) == len(rows)
        for row in rows:
            section, name = row.setting.split(".")
            assert getattr(getattr(config, section), name) == row.value, row.setting
            assert row.rule


def test_training_sees_twenty_tokens_a_parameter_where_the_text_has_them() -> None:
    config, _ = a_run(4, parameters=10**7, tokens=10**9)
    seen = config.train.steps * config.train.batch_size * config.model.context_length
    assert seen == pytest.approx(2e8, rel=0.01)


def test_a_small_text_is_read_four_times_and_the_table_says_so() -> None:
    config, rows = a_run(4, parameters=10**7, tokens=500_000)
    seen = config.train.steps * config.train.batch_size * config.model.context_length
    assert seen == pytest.approx(2e6, rel=0.01)
    (rule,) = [row.rule for row in rows if row.setting == "train.steps"]
    assert rule.startswith("4 epochs")
    assert "400" in rule


def test_batches_follow_the_power_law_in_tokens() -> None:
    for parameters in (10**5, 10**6, 10**8):
        config, _ = a_run(4, parameters=parameters, tokens=10**12)
        wanted = 0.58 * (20 * parameters) ** 0.571
        assert config.train.batch_size == max(1, round(wanted / config.model.context_length))


def test_what_the_user_gave_stays_and_what_builds_on_it_follows() -> None:
    own = Config(
        model=ModelConfig(d_model=192, num_heads=6),
        optim=OptimConfig(optimizer="adamw", weight_decay=0.01),
        train=TrainConfig(steps=7),
        data=DataConfig(tokenizer="bytes"),
    )
    given = frozenset(("model.d_model", "model.num_heads", "optim.optimizer", "optim.weight_decay"))
    given |= {"train.steps"}
    config, rows = a_run(8, own, given)
    assert (config.model.d_model, config.model.num_heads, config.model.head_dim) == (192, 6, 32)
    assert config.model.d_ff == 768
    assert config.model.attention_scale == pytest.approx(1 / math.sqrt(32))
    assert (config.optim.optimizer, config.optim.weight_decay) == ("adamw", 0.01)
    assert config.optim.learning_rate == 3e-3
    assert config.train.steps == 7
    assert config.data.tokenizer == "bytes"
    assert {row.setting for row in rows if row.rule == "yours"} == given


def test_a_value_that_is_the_default_stays_when_it_was_given() -> None:
    assert a_run(4)[0].model.d_model == 256
    assert a_run(4, given=frozenset(["model.d_model"]))[0].model.d_model == ModelConfig().d_model


def test_a_tied_head_goes_without_mup() -> None:
    own = Config(model=ModelConfig(tied_head=True, head_bias=False))
    config, _ = a_run(2, own, frozenset(["model.tied_head", "model.head_bias"]))
    assert config.model.tied_head
    assert config.model.base_width == 0


def test_a_time_leaves_steps_and_schedule_to_itself() -> None:
    config, rows = a_run(3, timed=True)
    assert config.train.steps == TrainConfig().steps
    assert config.optim.warmup_steps == 0
    assert "train.batch_size" in {row.setting for row in rows}


def test_a_depth_that_contradicts_is_refused() -> None:
    with pytest.raises(UserError, match=r"depth \(3\) and num_layers \(8\) must agree"):
        a_run(3, given=frozenset(["model.num_layers"]))
    assert a_run(8, given=frozenset(["model.num_layers"]))[0].model.num_layers == 8
    with pytest.raises(UserError, match=r"depth \(0\) must be at least 1"):
        a_run(0)


@pytest.mark.parametrize(
    "word", ["--depth=0", "--depth=1.5", "--depth=deep", "--depth=2 --model.num_layers=3"]
)
def test_a_bad_depth_is_one_line(word: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        command.run(train, word.split(), takes_files=True)
    assert stop.value.code == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1


def test_given_settings_are_seen_in_files_and_options(tmp_path: Path) -> None:
    file = tmp_path / "own.toml"
    file.write_text("[model]\nd_model = 64\n[train]\nsteps = 3\n")
    seen: list[Mapping[str, int]] = []

    def function(
        *,
        config: Annotated[Config, Parameter(name="*")] = Config(),
        given: command.Given = command.NOTHING_GIVEN,
    ) -> None:
        seen.append(given)

    with pytest.raises(SystemExit) as stop:
        command.run(function, [str(file), "--train.steps=4", "--model.no-tied_head"], takes_files=True)
    assert stop.value.code == 0
    assert seen == [{"model.d_model": 0, "train.steps": 1, "model.tied_head": 1}]


def test_a_run_of_depth_one_trains_what_its_table_says(
    tmp_path: Path, prose: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [f"--data.corpus={prose}", f"--data.prepared={tmp_path}", f"--train.run={tmp_path / 'run'}"]
    words += ["--data.tokenizer=bytes", "--train.sample_tokens=0", "--model.d_model=32", "--depth=1"]
    words += ["--optim.optimizer=adamw"]  # compiles sooner than Muon

    with pytest.raises(SystemExit) as stop:
        command.run(train, words, takes_files=True)
    out, err = capsys.readouterr()
    assert stop.value.code == 0, err
    summary = json.loads(out.splitlines()[-1])
    saved = json.loads((tmp_path / "run" / "config.json").read_text())
    assert (saved["model"]["num_layers"], saved["model"]["d_model"]) == (1, 32)
    assert saved["model"]["base_width"] == BASE_WIDTH
    assert saved["train"]["steps"] == summary["step"]
    assert f"train.steps │ {summary['step']}" in " ".join(out.split())
    model = ModelConfig(**{**saved["model"], "rotary": ModelConfig().rotary})
    assert f"depth 1: {count_parameters(abstract_params(model)):,} parameters" in out
