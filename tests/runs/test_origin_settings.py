"""Runs that start from a model: which settings come with it, and which can be given."""

import dataclasses
from pathlib import Path

import jax
import pytest

import llm_jax
from llm_jax.base.process import seconds_since_start
from llm_jax.config.load import read_config
from llm_jax.config.model import ModelConfig
from llm_jax.config.run import Config, DataConfig, TrainConfig
from llm_jax.planning.by_time import planned_config
from llm_jax.prepare import prepare
from llm_jax.runs import init_from
from llm_jax.runs.inherited import INHERITED
from llm_jax.train import train
from llm_jax.training.state import evaluated_params
from tests.runs.test_origin import a_model, a_parent, words_for
from tests.support.commands import run_command

pytestmark = pytest.mark.compiles


@pytest.fixture(scope="module")
def parent(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return a_parent(tmp_path_factory.mktemp("origin_settings"))


def refusal(words: list[str], capsys: pytest.CaptureFixture[str], status: int = 2) -> str:
    run_command(train, words, status=status, takes_files=True)
    line = capsys.readouterr().err
    assert line.startswith("error: ")
    assert line.count("\n") == 1
    return line


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ("--model.d_model=48", "model.d_model (48) must be 24"),
        ("--model.num_layers=1", "model.num_layers (1) must be"),
        ("--model.rotary.theta=20000", "model.rotary.theta (20000.0) must be 500.0"),
        ("--model.context_length=32", "context_length (32) must not exceed 16"),
        ("--model.vocab_size=300", "model.vocab_size (300) must be 259"),
        ("--data.tokenizer=bytes", "tokenizer (bytes) must be left out"),
        ("--data.compact_vocab=true", "compact_vocab must be false"),
        ("--data.compact_min_count=2", "compact_min_count must be left out"),
        ("--data.bpe_vocab_size=300", "bpe_vocab_size must be left out"),
        ("--data.rare_ids=share", "rare_ids must be left out"),
        ("--time=soon", "time (soon)"),
    ],
)
def test_what_contradicts_the_model_is_refused_in_one_line(
    words: str, named: str, tmp_path: Path, parent: Path, prose: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert named in refusal(words_for(tmp_path, parent, prose, words), capsys)
    assert not (tmp_path / "run").exists()


def test_a_file_that_contradicts_the_model_is_refused(
    tmp_path: Path, parent: Path, prose: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "other.toml"
    file.write_text("[model]\nd_model = 48\nnum_heads = 12\n")
    line = refusal([str(file), *words_for(tmp_path, parent, prose)], capsys)
    assert "model.d_model (48) must be 24" in line
    assert "model.num_heads (12)" in line


def test_a_directory_without_a_model_is_refused(
    tmp_path: Path, prose: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = refusal(words_for(tmp_path, tmp_path / "nowhere", prose), capsys, status=4)
    assert "nowhere" in line
    assert "run directory, or one that `convert import` made" in line


def test_an_inherited_tokenizer_needs_a_model(
    tmp_path: Path, prose: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    alone = ["--data.tokenizer=inherited", "--data.compact_vocab=false", f"--data.corpus={prose}"]
    assert "needs train.init_from" in refusal(alone, capsys)
    run_command(prepare, [str(prose), "--tokenizer=inherited", "--compact_vocab=false"], status=2)
    assert "needs a model" in capsys.readouterr().err


def test_how_a_model_runs_can_be_given(tmp_path: Path, parent: Path, prose: Path) -> None:
    given = ["--model.context_length=8", "--model.layers=unroll", "--model.dropout=0.2", "--train.steps=1"]
    words = [word for word in words_for(tmp_path, parent, prose) if not word.startswith("--train.steps")]
    run_command(train, [*words, *given, "--train.eval_stride=8"], takes_files=True)
    model = llm_jax.load(tmp_path / "run").config
    assert (model.context_length, model.layers, model.dropout) == (8, "unroll", 0.2)
    assert model.d_model == 24


def test_learned_positions_keep_their_number(
    tmp_path: Path, prose: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small = ModelConfig(vocab_size=257, context_length=16, d_model=8, num_layers=1, num_heads=2)
    learned = a_model(tmp_path / "learned", dataclasses.replace(small, positions="learned"))
    line = refusal(words_for(tmp_path, learned, prose, "--model.context_length=8"), capsys)
    assert "must be 16 with learned positions" in line


def test_weights_are_evaluated_in_the_type_that_is_asked_for(tmp_path: Path, parent: Path) -> None:
    found = init_from.find_origin(str(parent), tmp_path / "new")
    narrow = dataclasses.replace(found.model, param_dtype="bfloat16")
    init_from.require_same_model(narrow, found)
    train_config = TrainConfig(init_from=str(parent))
    data = DataConfig(tokenizer="inherited", compact_vocab=False)
    state = init_from.first_state(Config(model=narrow, data=data, train=train_config), found)
    assert {str(leaf.dtype) for leaf in jax.tree.leaves(state["params"])} == {"float32"}
    assert {str(leaf.dtype) for leaf in jax.tree.leaves(evaluated_params(narrow, state))} == {"bfloat16"}


def test_a_planned_run_keeps_the_models_size(tmp_path: Path, prose: Path) -> None:
    tutorials = a_model(tmp_path / "tutorials", dataclasses.replace(Config().model, vocab_size=256))
    words = [
        *(f"--train.init_from={tutorials}", f"--data.corpus={prose}", f"--train.run={tmp_path / 'run'}"),
        *(f"--data.prepared={tmp_path / 'prepared'}", "--train.sample_tokens=4"),
    ]
    config, lines = read_config([], words, below=INHERITED), []
    planned = planned_config(config, seconds_since_start() + 3600, lines.append)
    assert any("8 layers × width 64 (your size)" in line for line in lines)
    assert planned.model == config.model
    assert planned.train.steps != config.train.steps
