"""The path of data, walked whole: prepare, train, stop, resume, evaluate, generate, load, convert."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest

import llm_jax
from llm_jax.base.errors import UserError
from llm_jax.base.json_lines import read_lines
from llm_jax.base.process import seconds_since_start
from llm_jax.checkpoints.reader import read_state
from llm_jax.config.decoding import SamplingConfig
from llm_jax.convert import convert
from llm_jax.evaluate import evaluate
from llm_jax.generate import generate
from llm_jax.proofs.resume import last_logged_step
from llm_jax.train import train
from tests.support.commands import MODEL, QUICK, metrics_of, run_command, words_for


def test_a_run_directory_records_itself(trained: Path) -> None:
    entries = metrics_of(trained)
    assert [entry["step"] for entry in entries if "train_loss" in entry] == list(range(1, 13))
    assert read_lines(trained / "metrics.jsonl", report=pytest.fail) == entries
    evaluations = [entry for entry in entries if "validation_loss" in entry]
    assert [entry["step"] for entry in evaluations] == [6, 12]
    assert evaluations[0]["validation_standard_error"] > 0
    config = json.loads((trained / "config.json").read_text())
    assert config["model"]["vocab_size"] > 256
    recorded = json.loads((trained / "environment.json").read_text())
    assert recorded["versions"]["jax"] == jax.__version__
    assert "The salesperson" in (trained / "samples.jsonl").read_text()
    assert {path.name for path in (trained / "checkpoints").iterdir()} >= {"8", "12"}


def test_the_last_line_is_json_and_baselines_stand_beside_the_loss(
    tmp_path: Path, prose: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_command(train, words_for(tmp_path, prose), takes_files=True)
    summary = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert set(summary["baselines"]) == {"uniform", "unigram", "bigram", "trigram"}
    assert summary["baselines"]["uniform"] > summary["baselines"]["unigram"] > summary["baselines"]["bigram"]
    assert summary["validation_loss"] > 0
    assert summary["validation_bits_per_byte"] > 0
    assert 0 < summary["seconds_to_first_step"] <= seconds_since_start()
    last = metrics_of(tmp_path / "run")[-1]
    for name in ("seconds", "compile_seconds", "seconds_to_first_step"):
        assert last[name] == summary[name]


def test_seconds_since_start_count_the_interpreters_own_start() -> None:
    program = "from llm_jax.base.process import seconds_since_start as age; "
    program = f"import time; time.sleep(0.3); {program}print(age())"
    before = time.monotonic()
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert 0.3 <= float(done.stdout) <= time.monotonic() - before + 0.02  # The kernel counts in 10 ms.


def test_a_finished_run_started_again_changes_nothing(trained: Path, prose: Path) -> None:
    before, samples = read_state(trained / "checkpoints"), (trained / "samples.jsonl").read_text()
    run_command(train, words_for(trained.parent, prose), takes_files=True)
    assert (trained / "samples.jsonl").read_text() == samples
    after = read_state(trained / "checkpoints")
    assert jax.tree.all(jax.tree.map(np.array_equal, before, after))
    assert len([entry for entry in metrics_of(trained) if "train_loss" in entry]) == 12


def test_another_configuration_is_refused_with_the_difference(
    trained: Path, prose: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_command(
        train, words_for(trained.parent, prose, "--optim.weight_decay=0.5"), status=2, takes_files=True
    )
    assert "optim.weight_decay: 0.01 -> 0.5" in capsys.readouterr().err


def test_a_changed_text_is_refused(tmp_path: Path, prose: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = tmp_path / "text.txt"
    text.write_text(prose.read_text())
    run_command(train, words_for(tmp_path, text), takes_files=True)
    text.write_text(prose.read_text() + "\nOne line more than before.")
    run_command(train, words_for(tmp_path, text), status=4, takes_files=True)
    assert "another text" in capsys.readouterr().err


def test_evaluate_repeats_the_score_of_training(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_command(evaluate, [str(trained)])
    score = json.loads(capsys.readouterr().out.splitlines()[-1])
    last = next(entry for entry in reversed(metrics_of(trained)) if "validation_loss" in entry)
    assert score["loss"] == pytest.approx(last["validation_loss"], rel=1e-6)
    assert score["bits_per_byte"] == pytest.approx(last["validation_bits_per_byte"], rel=1e-6)
    assert score["loss"] * score["tokens"] == pytest.approx(
        score["bits_per_byte"] * np.log(2) * score["bytes"], rel=1e-9
    )


def test_evaluate_scores_any_text(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "other.txt").write_text("Quite another text, with words like xylophone.")
    run_command(evaluate, [str(trained), "--text", str(tmp_path / "other.txt")])
    score = json.loads(capsys.readouterr().out.splitlines()[-1])
    model = llm_jax.load(trained)
    ids = model.tokenizer.encode("Quite another text, with words like xylophone.")
    assert score["tokens"] == len(ids) - 1
    nats = 0.0
    for start in range(0, len(ids) - 1, 8):
        window = ids[start : start + 9]
        logits = model.logits(window[:-1])
        nats -= sum(jax.nn.log_softmax(logits)[np.arange(len(window) - 1), window[1:]])
    assert score["loss"] == pytest.approx(float(nats) / (len(ids) - 1), rel=1e-5)


def test_a_model_whose_rare_ids_share_a_row_trains_scores_and_speaks(
    tmp_path: Path, prose: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_command(train, words_for(tmp_path, prose, "--data.rare_ids=share"), takes_files=True)
    summary = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert summary["baselines"]["uniform"] == pytest.approx(np.log(100_256))
    model = llm_jax.load(tmp_path / "run")
    assert model.params["head"]["bias"].shape == (model.config.num_rows,)
    (tmp_path / "other.txt").write_text("A xylophone!")
    run_command(evaluate, [str(tmp_path / "run"), "--text", str(tmp_path / "other.txt")])
    score = json.loads(capsys.readouterr().out.splitlines()[-1])
    ids = model.tokenizer.encode("A xylophone!")
    scores = jax.nn.log_softmax(model.logits(ids[:-1]))[np.arange(len(ids) - 1), ids[1:]]
    assert score["loss"] == pytest.approx(-float(scores.mean()), rel=1e-5)
    assert len(model.generate("The salesperson", max_new_tokens=5)) > 0


def test_commands_refuse_a_directory_without_a_model(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for function in (generate, evaluate):
        run_command(function, [str(tmp_path)], status=4)
        assert "has no checkpoint in" in capsys.readouterr().err


def test_loaded_model_answers_with_logits_and_text(trained: Path) -> None:
    model = llm_jax.load(trained)
    one = model.logits([1, 2, 3])
    both = model.logits([[1, 2, 3], [4, 5, 6]])
    assert (one.shape, both.shape) == ((3, model.config.vocab_size), (2, 3, model.config.vocab_size))
    np.testing.assert_allclose(both[0], one, atol=1e-5)
    greedy = SamplingConfig(temperature=0)
    text = model.generate("The salesperson", max_new_tokens=30, sampling=greedy)
    assert text == model.generate("The salesperson", max_new_tokens=30, sampling=greedy)
    assert text.startswith(model.generate("The salesperson", max_new_tokens=5, sampling=greedy))
    word = text.strip().split()[1]
    assert word not in model.generate("The salesperson", max_new_tokens=30, sampling=greedy, stop=[word])
    with pytest.raises(UserError, match="context_length"):
        model.logits(np.zeros(9, int))


def test_export_and_import_give_back_every_bit(tmp_path: Path, prose: Path) -> None:
    run_command(train, words_for(tmp_path, prose, "--model.spare_embedding_rows=1"), takes_files=True)
    run_command(convert, ["export", str(tmp_path / "run"), str(tmp_path / "out.safetensors")])
    back = tmp_path / "back"
    run_command(convert, ["import", str(tmp_path / "out.safetensors"), str(back)])
    one, two = llm_jax.load(tmp_path / "run"), llm_jax.load(back)
    assert jax.tree.all(jax.tree.map(np.array_equal, one.params, two.params))
    assert dataclasses.replace(two.config, d_ff=0) == one.config


def test_convert_refuses_what_it_cannot_do(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "junk.safetensors").write_bytes(b"junk")
    (tmp_path / "there").mkdir()
    run_command(convert, ["export", str(trained), str(tmp_path / "more_than_256.safetensors")])
    cases = [
        (
            ["import", str(tmp_path / "more_than_256.safetensors"), str(tmp_path / "o"), "--tokenizer=bytes"],
            2,
            "give another --tokenizer",
        ),
        (
            ["import", str(tmp_path / "absent.pt"), str(tmp_path / "o")],
            4,
            "give a local Hugging Face folder, a .gguf, .safetensors or .pt file",
        ),
        (["import", str(tmp_path / "junk.safetensors"), str(tmp_path / "o")], 4, "cannot be read"),
        (["import", str(tmp_path / "junk.safetensors"), str(tmp_path / "there")], 2, "must not exist"),
        (["export", str(trained), str(tmp_path / "x.pt")], 2, "must end in .safetensors"),
        (["export", str(trained), str(tmp_path / "x.safetensors"), "--format", "onnx"], 2, "torch_tutorial"),
        (
            ["export", str(trained), str(tmp_path / "x"), "--format", "huggingface"],
            4,
            "cannot export: no Hugging Face",
        ),
        (["dance"], 2, "dance"),
    ]
    for words, status, named in cases:
        run_command(convert, words, status=status)
        assert named in capsys.readouterr().err


def test_resuming_without_the_optimizer_state_would_be_noticed(trained: Path) -> None:
    state = read_state(trained / "checkpoints")
    assert any(np.any(leaf) for leaf in jax.tree.leaves(state["opt_state"]))
    assert {"params", "opt_state", "counters"} <= state.keys()


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGHUP"])
def test_a_signal_saves_and_ends_with_75_and_the_same_command_goes_on(
    tmp_path: Path, prose: Path, name: str
) -> None:
    more = ["--train.steps=100000", "--train.eval_interval=100000", "--train.save_interval=100000"]
    places = words_for(tmp_path, prose)[len(MODEL) + len(QUICK) :]
    words = [sys.executable, "-m", "llm_jax.train", *MODEL, *places]
    process = subprocess.Popen([*words, *more, "--train.log_interval=1"], stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while last_logged_step(tmp_path / "run") < 5 and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(getattr(signal, name))
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 75, errors
    assert "saved" in errors
    assert "Traceback" not in errors
    steps = [int(path.name) for path in (tmp_path / "run" / "checkpoints").iterdir() if path.name.isdecimal()]
    assert max(steps) == last_logged_step(tmp_path / "run") >= 5


def test_a_run_without_git_still_runs_and_has_no_tracker_by_itself(
    tmp_path: Path, prose: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "")
    run_command(train, words_for(tmp_path, prose), takes_files=True)
    assert json.loads((tmp_path / "run" / "environment.json").read_text())["git"] is None
    assert not (tmp_path / "run" / "tensorboard").exists()


def test_environment_leaves_nothing_behind(trained: Path) -> None:
    assert not [path for path in trained.rglob("*") if "tmp" in path.name]
    assert os.access(trained, os.W_OK)
