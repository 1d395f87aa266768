"""The best checkpoint: kept, and taken by every command that reads a model; what is said once it is past."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import numpy as np
import pytest

import llm_jax
from llm_jax.base.errors import CheckpointError, UserError
from llm_jax.chat import chat
from llm_jax.checkpoints.reader import read_about, read_params, read_state
from llm_jax.checkpoints.step_files import saved_steps
from llm_jax.config.decoding import SamplingConfig
from llm_jax.config.model import ModelConfig
from llm_jax.convert import convert
from llm_jax.evaluate import evaluate
from llm_jax.explain import explain
from llm_jax.generate import generate
from llm_jax.harness import harness
from llm_jax.language_model.save import save_model
from llm_jax.model.decoder import init_params
from llm_jax.report import report
from llm_jax.tokenization.plain import ByteTokenizer
from llm_jax.train import train
from llm_jax.training import loop
from tests.runs.test_going_on import going_on
from tests.support.checkpoints import flip_a_bit
from tests.support.commands import metrics_of, run_command

pytestmark = pytest.mark.compiles

LOSSES = {2: 5.0, 4: 3.0, 6: 4.0, 8: 4.5, 10: 5.0, 12: 6.0, 14: 7.0}  # best at 4, then risen


@pytest.fixture(scope="module", autouse=True)
def scripted() -> Iterator[None]:
    """Runs whose validation losses are those of LOSSES, and that leave no page."""

    def scored(*of: Any) -> dict[str, float]:
        numbers = ("loss", "standard_error", "perplexity", "bits_per_byte", "tokens", "bytes")
        return dict.fromkeys([f"validation_{name}" for name in numbers], LOSSES[of[-1]])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "_evaluate", scored)
        patch.setattr("llm_jax.reports.gather.leave_report", lambda *_: None)
        yield


def words(folder: Path, prose: Path, *more: str) -> list[str]:
    """A run that evaluates and saves every second step, and keeps the last two and the best."""
    often = ["--train.eval_interval=2", "--train.save_interval=2", "--train.keep=2"]
    return going_on(folder, prose, *often, "--train.sample_tokens=4", *more)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, prose: Path) -> Path:
    """A run of 12 steps that was best at step 4."""
    folder = tmp_path_factory.mktemp("risen")
    run_command(train, words(folder, prose), takes_files=True)
    return folder / "run"


@pytest.fixture
def run(made: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return shutil.copytree(made, tmp_path / "run")


def said(capsys: pytest.CaptureFixture[str]) -> str:
    return "".join(capsys.readouterr())


# Command, words, exit status, and what takes long once the model is read, which others test.
COMMANDS: dict[str, tuple[Any, list[str], int, str]] = {
    "generate": (generate, ["RUN", "--max_new_tokens=2"], 0, ""),
    "chat": (chat, ["RUN"], 2, ""),  # it has no template, which shows once it is read
    "evaluate": (evaluate, ["RUN"], 0, ""),
    "evaluate a text": (evaluate, ["RUN", "--text=RUN/samples.jsonl"], 0, ""),
    "explain": (explain, ["RUN"], 2, "llm_jax.walkthrough.gather.make_lesson"),
    "report": (report, ["RUN"], 2, "llm_jax.reports.gather.write_report"),
    "compare": (report, ["RUN", "RUN"], 2, "llm_jax.reports.compare._pair"),
    "export": (convert, ["export", "RUN", "OUT.safetensors"], 0, ""),
    "harness": (harness, ["RUN", "--tasks=any"], 2, ""),
}


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_takes_the_best_checkpoint_unless_told_otherwise_and_says_so(
    run: Path, name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    command, pattern, status, rest = COMMANDS[name]

    def enough(*_: Any, **__: Any) -> None:
        raise UserError("enough")

    if rest:
        monkeypatch.setattr(rest, enough)
    stub = SimpleNamespace(asking=enough)  # lm-eval takes long to import
    monkeypatch.setattr(llm_jax.language_model, "harness_model", stub, raising=False)

    def asked(*more: str, status: int = status) -> str:
        out = str(run / f"out{len(more)}")
        words = [word.replace("RUN", str(run)).replace("OUT", out) for word in pattern]
        run_command(command, [*words, *more], status=status)
        return said(capsys)

    assert f"{run}: step 4 of 12, the best by validation\n" in asked()
    assert f"{run}: step 10 of 12, as asked for\n" in asked("--step=10")
    line = "step must be best, last or the number of a checkpoint, got 'worst'"
    assert line in asked("--step", "worst", status=2)


def test_what_is_taken_is_that_step(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert sorted(saved_steps(run / "checkpoints")) == [4, 10, 12]
    lines: list[str] = []
    for asked, step in (("best", 4), ("last", 12), (10, 10), ("10", 10)):
        model = llm_jax.load(run, step=asked, report=lines.append)
        assert model.about["step"] == step
        wanted, _ = read_params(run / "checkpoints", jax.eval_shape(lambda of=model: of.params), step=step)
        assert jax.tree.all(jax.tree.map(np.array_equal, model.params, wanted))
    assert [line.partition(", ")[2] for line in lines] == [
        *("the best by validation", "the last", "as asked for", "as asked for")
    ]
    assert llm_jax.load(run).about["step"] == 4
    assert "step 4 of 12, the best by validation" in capsys.readouterr().err
    with pytest.raises(CheckpointError, match=r"must hold checkpoint 7; it has steps \[4, 10, 12\]"):
        llm_jax.load(run, step=7)
    run_command(evaluate, [str(run), "--step=12"])
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["step"] == 12


def test_a_damaged_best_is_passed_over_for_the_last_with_a_warning(run: Path) -> None:
    flip_a_bit(run / "checkpoints" / "4")
    lines: list[str] = []
    assert llm_jax.load(run, report=lines.append).about["step"] == 12
    assert "warning: checkpoint 4 is damaged" in lines[0]
    assert lines[1] == f"{run}: step 12 of 12, the last"
    with pytest.raises(CheckpointError, match="no undamaged checkpoint"):
        llm_jax.load(run, step=4)
    flip_a_bit(run / "checkpoints" / "12")
    assert llm_jax.load(run, report=lines.append).about["step"] == 10
    assert lines[-1] == f"{run}: step 10 of 12, the last that is undamaged"


def test_an_import_has_one_step_and_says_nothing_of_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = ModelConfig(vocab_size=256, context_length=8, d_model=8, num_layers=1, num_heads=1)
    save_model(tmp_path, config, init_params(jax.random.key(0), config), ByteTokenizer())
    for asked in ("best", "last", 0):
        assert llm_jax.load(tmp_path, step=asked).about["step"] == 0
    assert said(capsys) == ""


def test_a_run_that_rises_says_so_once_and_samples_its_best(
    tmp_path: Path, prose: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_command(train, words(tmp_path, prose), takes_files=True)
    out = capsys.readouterr().out
    line = "validation has risen since step 4; the best checkpoint is kept; more dropout or text would help"
    assert out.count("validation has risen") == out.splitlines().count(line) == 1
    assert out.index("step 8:") < out.index(line) < out.index("step 10:")
    assert "step 4 of 12, the best by validation" in out
    summary = json.loads(out.splitlines()[-1])
    assert (summary["step"], summary["best_step"], summary["validation_loss"]) == (12, 4, 6.0)
    last = json.loads((tmp_path / "run" / "samples.jsonl").read_text().splitlines()[-1])
    again = llm_jax.load(tmp_path / "run").generate("The salesperson", max_new_tokens=4, seed=1337)
    assert last == {"step": 4, "text": f"The salesperson{again}"}


def trained_steps(run: Path) -> list[int]:
    return [line["step"] for line in metrics_of(run) if "train_loss" in line]


def test_patience_ends_a_run_which_does_not_begin_again_by_itself(
    made: Path, tmp_path: Path, prose: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked, run = words(tmp_path, prose, "--train.patience=2"), tmp_path / "run"
    line = "ended after step 8 of 12 by train.patience = 2: validation was best at step 4; a larger patience"
    for _ in range(2):
        run_command(train, asked, takes_files=True)
        out = capsys.readouterr().out
        assert out.count(line) == 1
        summary = json.loads(out.splitlines()[-1])
        assert (summary["step"], summary["best_step"]) == (8, 4)
        assert trained_steps(run) == list(range(1, 9))
        assert sorted(saved_steps(run / "checkpoints")) == [4, 6, 8]
    run_command(train, [*asked[:-1], "--train.patience=3"], takes_files=True)
    assert trained_steps(run) == list(range(1, 11))
    run_command(train, asked[:-1], takes_files=True)  # none: to the last step
    same = jax.tree.map(np.array_equal, *(read_state(each / "checkpoints") for each in (run, made)))
    assert jax.tree.all(same)


def test_the_best_outlives_an_extension(tmp_path: Path, prose: Path) -> None:
    run = tmp_path / "run"
    run_command(train, words(tmp_path, prose, "--train.steps=6"), takes_files=True)
    run_command(train, words(tmp_path, prose, "--train.steps=12"), takes_files=True)
    assert sorted(saved_steps(run / "checkpoints")) == [4, 10, 12]
    assert read_about(run / "checkpoints")["since_best"] == 4
    assert llm_jax.load(run, report=lambda _: None).about["step"] == 4


def test_the_text_is_where_the_last_checkpoint_has_it(
    run: Path, tmp_path: Path, prose: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The best one was saved when the text was elsewhere."""
    text = shutil.copy(prose, tmp_path / "elsewhere.txt")
    moved = [f"--data.prepared={tmp_path / 'stores'}", "--train.steps=14"]
    run_command(train, words(tmp_path, Path(text), *moved), takes_files=True)
    capsys.readouterr()
    config = llm_jax.load(run).about["config"]
    assert (config["data"]["corpus"], config["train"]["steps"]) == (str(text), 12)


def test_samples_of_training_and_generate_are_drawn_alike(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shared = SamplingConfig(temperature=0.8, top_p=0.9)
    assert SamplingConfig() == shared
    model = llm_jax.load(run)
    wanted = model.generate("The", max_new_tokens=9, seed=3, sampling=shared)
    assert model.generate("The", max_new_tokens=9, seed=3) == wanted
    capsys.readouterr()
    run_command(generate, [str(run), "--prompt=The", "--max_new_tokens=9", "--seed=3"])
    assert capsys.readouterr().out == f"The{wanted}\n"


def test_a_runs_samples_are_drawn_as_its_settings_say(tmp_path: Path, prose: Path) -> None:
    greedy = ["--train.sampling.temperature=0", "--train.steps=4"]
    run_command(train, words(tmp_path, prose, *greedy), takes_files=True)
    model = llm_jax.load(tmp_path / "run")
    text = model.generate("The salesperson", max_new_tokens=4, sampling=SamplingConfig(temperature=0))
    last = json.loads((tmp_path / "run" / "samples.jsonl").read_text().splitlines()[-1])
    assert last["text"] == f"The salesperson{text}"
