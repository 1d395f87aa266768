"""Runs that train adapters: resumed to the bit, scored and exported as the model that was trained."""

import json
from pathlib import Path

import jax
import numpy as np
import pytest

import llm_jax
from llm_jax.base.tree import flatten
from llm_jax.checkpoints.reader import read_state
from llm_jax.convert import convert
from llm_jax.fit import fit
from llm_jax.predict import predict
from llm_jax.train import train
from tests.support.commands import metrics_of, run_command, words_for

pytestmark = pytest.mark.compiles

LLAMA = [
    *("--model.positions=rotary", "--model.norm=rms", "--model.gated_mlp", "--model.activation=silu"),
    *("--model.no-output_bias", "--model.no-mlp_bias", "--model.no-head_bias", "--data.tokenizer=bytes"),
]
LORA = ["--optim.lora.rank=2", "--optim.learning_rate=0.02", "--model.dropout=0.1"]


@pytest.fixture(scope="module")
def base(prose: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    run_command(train, words_for(folder, prose, *LLAMA), takes_files=True)
    return folder / "run"


def tune(folder: Path, prose: Path, base: Path, *more: str, status: int = 0) -> Path:
    words = [word for word in words_for(folder, prose, *LORA, *more) if not word.startswith("--model.d")]
    words = [word for word in words if not word.startswith(("--model.num", "--model.context"))]
    run_command(train, [*words, f"--from={base}"], status, takes_files=True)
    return folder / "run"


@pytest.fixture(scope="module")
def tuned(prose: Path, base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tune(tmp_path_factory.mktemp("tuned"), prose, base)


def test_a_run_that_was_stopped_goes_on_to_the_bit_and_its_base_stays(
    prose: Path, base: Path, tuned: Path, tmp_path: Path
) -> None:
    tune(tmp_path, prose, base, "--train.steps=4")
    tune(tmp_path, prose, base)
    halves, whole = (read_state(run / "checkpoints") for run in (tmp_path / "run", tuned))
    for a, b in zip(*map(jax.tree.leaves, (halves, whole)), strict=True):
        np.testing.assert_array_equal(a, b)
    after = dict(flatten(whole["params"]))
    for path, leaf in flatten(llm_jax.load(base).params):
        np.testing.assert_array_equal(after[path], leaf, err_msg=path)
    assert np.any(after["blocks/query/lora_b"])


def test_what_is_loaded_scores_as_the_run_did(tuned: Path, base: Path) -> None:
    first, *_, last = (each for each in metrics_of(tuned) if "validation_loss" in each)
    model = llm_jax.load(tuned, step="last")
    assert not [path for path, _ in flatten(model.params) if "lora" in path]
    assert first["validation_loss"] == pytest.approx(
        [each for each in metrics_of(base) if "validation_loss" in each][-1]["validation_loss"], abs=1e-6
    )
    assert last["validation_loss"] < first["validation_loss"]


def test_it_is_exported_as_adapters_and_merged(
    tuned: Path, base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_command(convert, ["export", str(tuned), str(tmp_path / "adapter"), "--format=peft"])
    assert "adapters of 14 matrices, for run" in capsys.readouterr().out
    about = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert (about["r"], about["lora_alpha"], about["use_dora"]) == (2, 32.0, False)
    run_command(convert, ["export", str(tuned), str(tmp_path / "whole"), "--format=huggingface"])
    run_command(convert, ["export", str(base), str(tmp_path / "theirs"), "--format=huggingface"])
    together = [str(tmp_path / "theirs"), str(tmp_path / "both"), f"--adapter={tmp_path / 'adapter'}"]
    run_command(convert, ["import", *together])
    wanted, got = llm_jax.load(tuned).params, llm_jax.load(tmp_path / "both").params
    for path, leaf in flatten(wanted):
        np.testing.assert_allclose(dict(flatten(got))[path], leaf, rtol=1e-5, atol=1e-6, err_msg=path)
    run_command(convert, ["export", str(base), str(tmp_path / "none"), "--format=peft"], 2)
    assert "and has no adapters" in capsys.readouterr().err


def test_a_run_starts_from_one_with_adapters(tuned: Path, prose: Path, tmp_path: Path) -> None:
    run = tune(tmp_path, prose, tuned, "--optim.lora.kind=dora")
    first = next(each for each in metrics_of(run) if "validation_loss" in each)
    best = min(each["validation_loss"] for each in metrics_of(tuned) if "validation_loss" in each)
    assert first["validation_loss"] == pytest.approx(best, abs=1e-5)


def test_adapters_need_a_model_to_adapt(
    prose: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_command(train, words_for(tmp_path, prose, "--optim.lora.rank=2"), 2, takes_files=True)
    assert "optim.lora.rank has no effect" in capsys.readouterr().err


def test_a_classifier_trains_its_head_beside_adapters(
    base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [f"{word} {number},{label}" for number in range(40) for word, label in (("up", "a"), ("no", "b"))]
    (tmp_path / "rows.csv").write_text("\n".join(["text,label", *rows]) + "\n")
    run = tmp_path / "run"
    options = ["--optim.lora.rank=2", "--steps=30", "--train.batch_size=8", "--optim.learning_rate=0.02"]
    places = [f"--run={run}", f"--data.prepared={tmp_path / 'prepared'}", f"--from={base}"]
    run_command(fit, [str(tmp_path / "rows.csv"), *options, *places])
    state = read_state(run / "checkpoints")
    assert np.any(state["params"]["label_head"]["kernel"])
    leaves = jax.tree.leaves_with_path(state["opt_state"])
    moments = {jax.tree_util.keystr(path[-1:], simple=True) for path, leaf in leaves if np.ndim(leaf)}
    assert moments == {"lora_a", "lora_b", "kernel", "bias"}
    capsys.readouterr()
    run_command(predict, [str(run), "--text=up 7", "--text=no 9"])
    told = [json.loads(line)["label"] for line in capsys.readouterr().out.splitlines()]
    assert told == ["a", "b"]
