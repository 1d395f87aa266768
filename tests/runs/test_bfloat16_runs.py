"""A model with bfloat16 parameters through the commands: fine-tuned, scored, asked, exported and replayed."""

import dataclasses
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

import llm_jax
from llm_jax.checkpoints.checksums import checksums
from llm_jax.checkpoints.reader import read_state
from llm_jax.evaluate import evaluate
from llm_jax.interop.huggingface.read_config import read_model_config
from llm_jax.replay import replay
from llm_jax.train import train
from tests.interop.test_convert import run_convert
from tests.interop.test_families import LLAMA
from tests.runs.test_origin import a_model
from tests.support.commands import metrics_of, run_command
from tests.support.sampling import PLAIN

pytestmark = pytest.mark.compiles
_KINDS = ("float32", "bfloat16")


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory, prose: Path) -> dict[str, Path]:
    """A run from the same model in either type, at a rate below most of bfloat16's steps."""
    folder = tmp_path_factory.mktemp("bfloat16_runs")
    llama = read_model_config(LLAMA | {"vocab_size": 257, "hidden_size": 24})
    small = dataclasses.replace(llama, num_layers=2, context_length=16)
    for kind in _KINDS:
        a_model(folder / f"{kind}-model", dataclasses.replace(small, param_dtype=kind))
        words = [f"--train.init_from={folder / f'{kind}-model'}", f"--train.run={folder / kind}"]
        words += [f"--data.corpus={prose}", f"--data.prepared={folder / 'prepared'}", "--train.steps=60"]
        words += ["--train.eval_interval=60", "--train.save_interval=20", "--train.log_interval=1"]
        words += ["--train.sample_tokens=4", "--optim.learning_rate=3e-4", "--optim.ema_decay=0.9"]
        run_command(train, words, takes_files=True)
    return {kind: folder / kind for kind in _KINDS}


def validation_losses(run: Path) -> list[float]:
    return [line["validation_loss"] for line in metrics_of(run) if "validation_loss" in line]


def test_fine_tuning_in_bfloat16_learns_what_it_learns_in_float32(tuned: dict[str, Path]) -> None:
    falls = {}
    for kind, run in tuned.items():
        losses = validation_losses(run)
        falls[kind] = losses[0] - losses[-1]
    assert falls["float32"] > 0.05
    assert abs(falls["bfloat16"] - falls["float32"]) < 0.05 * falls["float32"]


def test_what_is_loaded_and_scored_is_what_training_evaluated(
    tuned: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    run = tuned["bfloat16"]
    model = llm_jax.load(run)
    assert {leaf.dtype for leaf in jax.tree.leaves(model.params)} == {jnp.dtype("bfloat16")}
    kept = jax.tree.leaves([read_state(run / "checkpoints")[part] for part in ("params", "ema")])
    assert {str(leaf.dtype) for leaf in kept} == {"float32"}
    run_command(evaluate, [str(run)])
    scored = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert scored["loss"] == validation_losses(run)[-1]
    assert len(model.generate_many(["The"], max_new_tokens=4, sampling=PLAIN, seed=0)[0].token_ids) == 4


def test_an_export_has_the_loaded_bits(tuned: dict[str, Path], tmp_path: Path) -> None:
    run = tuned["bfloat16"]
    run_convert(["export", str(run), str(tmp_path / "hf"), "--format", "huggingface"])
    run_convert(["import", str(tmp_path / "hf"), str(tmp_path / "back"), "--param_dtype", "bfloat16"])
    assert checksums(llm_jax.load(tmp_path / "back").params) == checksums(llm_jax.load(run).params)


def test_a_step_is_replayed_to_the_bit(tuned: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    run_command(replay, [str(tuned["bfloat16"]), "--step=44", "--before=2"])
    out = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (out["loss_equal"], out["grad_norm_equal"]) == (True, True)
