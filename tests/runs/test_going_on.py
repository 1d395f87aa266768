"""A run that goes on with other settings: what may differ, what is written down, where things may lie."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import pytest

from llm_jax.base.json_lines import read_history
from llm_jax.checkpoints.checksums import checksums
from llm_jax.checkpoints.reader import read_about, read_state
from llm_jax.config import changes
from llm_jax.config.run import MovedConfig
from llm_jax.evaluate import evaluate
from llm_jax.explain import explain
from llm_jax.generate import generate
from llm_jax.replay import replay
from llm_jax.report import report
from llm_jax.reports.gather import open_run
from llm_jax.runs import replay as replaying
from llm_jax.train import train
from llm_jax.walkthrough.gather import find_subject
from tests.support.commands import metrics_of, run_command, words_for

pytestmark = pytest.mark.compiles

AGREED = "--continue-with-changes"


def going_on(folder: Path, prose: Path, *words: str) -> list[str]:
    """Words for a run of 12 steps that keeps every checkpoint, of which those given here replace some."""
    base = {word.split("=")[0]: word for word in words_for(folder, prose, "--train.keep=99")}
    base["--train.sample_tokens"] = "--train.sample_tokens=0"
    base["--data.prepared"] = f"--data.prepared={prose.parent / 'prepared'}"  # one for all
    return list((base | {word.split("=")[0]: word for word in words}).values())


def losses(run: Path) -> dict[int, float]:
    return {line["step"]: line["train_loss"] for line in metrics_of(run) if "train_loss" in line}


def sums(run: Path) -> Any:
    return checksums(read_state(run / "checkpoints"))


def error_of(words: list[str], status: int, capsys: pytest.CaptureFixture[str]) -> str:
    capsys.readouterr()
    run_command(train, words, status=status, takes_files=True)
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    return error


@pytest.fixture(scope="module", autouse=True)
def no_reports() -> Iterator[None]:
    """The page that each run leaves would take most of the time here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("llm_jax.reports.gather.leave_report", lambda *_: None)
        yield


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory, prose: Path) -> Path:
    """A run of 12 steps with dropout, every step logged and every fourth saved."""
    folder = tmp_path_factory.mktemp("straight")
    run_command(train, going_on(folder, prose), takes_files=True)
    return folder / "run"


@pytest.fixture(scope="module")
def short(tmp_path_factory: pytest.TempPathFactory, prose: Path) -> Path:
    """The same, of 6 steps: its folder."""
    folder = tmp_path_factory.mktemp("short")
    run_command(train, going_on(folder, prose, "--train.steps=6"), takes_files=True)
    return folder


@pytest.fixture
def folder(short: Path, tmp_path: Path) -> Path:
    """A copy of the short run, to be gone on with."""
    return shutil.copytree(short, tmp_path / "copy")


def test_a_run_that_was_extended_is_the_longer_run_to_the_bit(
    folder: Path, straight: Path, prose: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = going_on(folder, prose)
    # Only where it is asked for: 5,000 is what train.steps is when nobody gives it.
    error = error_of([word for word in words if "train.steps=" not in word], 2, capsys)
    assert "(train.steps: 6 -> 5000); give --train.steps 6 to go on with it, more to extend it" in error
    run_command(train, words, takes_files=True)
    out = capsys.readouterr().out
    assert "changed after step 6: train.steps: 6 -> 12" in out
    assert "extended to 12 steps; the optimizer's state is kept" in out
    assert "learning rate: 0.001 in step 6, 0.001 in step 7; it stays\n" in out
    assert sums(folder / "run") == sums(straight)
    assert losses(folder / "run") == losses(straight)
    (line,) = read_history(folder / "run" / "changes.jsonl")
    assert (line["step"], line["batch"], line["changes"]) == (6, 6, {"train.steps": [6, 12]})
    assert line["command"]
    assert line["time"]
    assert read_about(folder / "run" / "checkpoints")["changes"] == [line]
    # Again: nothing differs any more, and the record stays.
    run_command(train, words, takes_files=True)
    assert read_history(folder / "run" / "changes.jsonl") == [line]


def test_what_changes_no_number_may_differ_and_is_written_down(
    folder: Path, straight: Path, prose: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The run is moved, its text has another name elsewhere, and what is only shown or kept is another."""
    moved = shutil.move(folder / "run", tmp_path / "moved run")
    text = shutil.copy(prose, tmp_path / "the same text.md")
    free = [f"--data.corpus={text}", f"--train.run={moved}", f"--data.prepared={tmp_path / 'stores'}"]
    free += ["--train.eval_interval=5", "--train.eval_batch_size=3", "--train.eval_stride=4"]
    free += ["--train.save_interval=3", "--train.keep=3", "--train.log_interval=2", "--train.prompt=One"]
    free += ["--train.steps_per_dispatch=4", "--train.sample_tokens=2", "--data.errors=replace"]
    # Shorter by a step than it was meant to be, as if it had been stopped there.
    run_command(train, going_on(folder, prose, *free, AGREED), takes_files=True)
    (line,) = read_history(Path(moved) / "changes.jsonl")
    names = {word.removeprefix("--").split("=")[0] for word in free} - {"train.run"}
    assert line["changes"].keys() == names | {"train.steps"}
    assert names <= changes.FREE
    assert line["changes"]["train.log_interval"] == [1, 2]
    assert sums(Path(moved)) == sums(straight)
    assert {step for step in losses(Path(moved)) if step > 6} == {8, 10, 12}
    # Of a finished run, without being asked.
    run_command(train, going_on(folder, prose, *free, "--train.log_interval=5"), takes_files=True)
    assert "train.log_interval: 2 -> 5" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("--model.d_model=32", "model.d_model: 16 -> 32"),
        ("--model.num_layers=1", "model.num_layers: 2 -> 1"),
        ("--optim.optimizer=muon", "optim.optimizer: adamw -> muon"),
        ("--optim.decay=matrices", "optim.decay: all -> matrices"),
        ("--optim.ema_decay=0.9", "optim.ema_decay: 0.0 -> 0.9"),
        ("--data.validation_fraction=0.3", "data.validation_fraction: 0.2 -> 0.3"),
        ("--data.compact_min_count=2", "data.compact_min_count: 3 -> 2"),
        ("--model.initializer=gpt2", "model.initializer: torch -> gpt2"),
    ],
)
def test_what_makes_another_model_data_or_optimizer_is_refused_with_the_difference(
    folder: Path, prose: Path, word: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sums(folder / "run")
    error = error_of(going_on(folder, prose, word, AGREED), 2, capsys)
    assert said in error
    assert AGREED not in error
    assert sums(folder / "run") == before


def test_fewer_steps_than_were_done_and_more_with_other_changes_are_refused(
    folder: Path, prose: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    error = error_of(going_on(folder, prose, "--train.steps=5", AGREED), 2, capsys)
    assert "train.steps (5) must not be below 6" in error
    error = error_of(going_on(folder, prose, "--optim.learning_rate=0.1"), 2, capsys)
    assert f"optim.learning_rate: 0.001 -> 0.1; train.steps: 6 -> 12); add {AGREED}" in error


FUTURES = [
    ["--optim.learning_rate=0.01", "--optim.schedule=cosine", "--optim.warmup_steps=2"],
    ["--optim.weight_decay=0.2", "--optim.clip_norm=0.5", "--optim.beta1=0.8"],
    ["--train.order=permutation", "--train.batch_size=2", "--model.dropout=0.3", "--train.seed=5"],
]


@pytest.fixture(scope="module")
def retuned(short: Path, tmp_path_factory: pytest.TempPathFactory, prose: Path) -> Path:
    """A run that was changed twice: after step 6, and after step 10."""
    folder = shutil.copytree(short, tmp_path_factory.mktemp("retuned") / "copy")
    words = [AGREED, *FUTURES[0], *FUTURES[2]]
    run_command(train, going_on(folder, prose, *words, "--train.steps=10"), takes_files=True)
    run_command(train, going_on(folder, prose, *words, *FUTURES[1], "--train.batch_size=3"), takes_files=True)
    return folder / "run"


def test_a_step_is_done_again_under_the_configuration_that_held_then(retuned: Path) -> None:
    logged = {line["step"]: line for line in metrics_of(retuned) if "train_loss" in line}
    assert logged.keys() == set(range(1, 13))
    for step, before in ((2, 9), (7, 0), (9, 5), (11, 0), (12, 11)):
        material = replaying.open_run(retuned, step, print)
        again = replaying.replay(retuned, material, step, before, report=print, track=lambda steps: steps)
        assert again.loss == logged[step]["train_loss"]
        for name in ("grad_norm", "update_norm", "learning_rate"):
            assert again.metrics[name] == logged[step][name]
        assert len(again.batch.tokens) == (4 if step < 7 else 2 if step < 11 else 3)
        first = step - len(again.earlier)
        assert [each["loss_sum"] / each["weight"] for each in again.earlier] == [
            logged[number]["train_loss"] for number in range(first, step)
        ]


def test_batches_of_another_size_go_on_in_the_order(retuned: Path) -> None:
    material = replaying.open_run(retuned, 12, print)
    assert material.order_start == (10, 6 * 4 + 4 * 2)
    assert material.at(10).order_start == (6, 24)
    assert material.at(6).order_start == (0, 0)


def test_a_report_lists_the_changes(retuned: Path, tmp_path: Path) -> None:
    run_command(report, [str(retuned), f"--out={tmp_path / 'page.html'}"])
    page = (tmp_path / "page.html").read_text()
    assert "optim.weight_decay: 0.01 -&gt; 0.2" in page
    assert "train.batch_size: 4 -&gt; 2" in page
    with (retuned / "changes.jsonl").open("a") as file:
        file.write('{"step": 11, "changes": 3}\n{"step": 11, "changes": {"a": 1}}\n')
    run_command(report, [str(retuned), f"--out={tmp_path / 'page.html'}"])


def test_a_longer_run_says_what_a_falling_rate_does_now(
    tmp_path: Path, prose: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cosine = "--optim.schedule=cosine"
    run_command(train, going_on(tmp_path, prose, cosine, "--train.steps=6"), takes_files=True)
    capsys.readouterr()
    run_command(train, going_on(tmp_path, prose, cosine), takes_files=True)
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("learning rate: ")]
    rates = {
        line["step"]: line["learning_rate"] for line in metrics_of(tmp_path / "run") if "train_loss" in line
    }
    assert f"0 in step 6, {rates[7]:.3g} in step 7" in line
    assert "to 0 in step 12: cosine as if planned over 12 steps" in line
    assert rates[12] == 0 < rates[11] < rates[7]


def test_commands_find_a_run_and_its_text_where_they_are_now(
    tmp_path: Path,
    prose: Path,
    short: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Made with relative paths in one folder, and used from another, where neither text nor tokens are."""
    (tmp_path / "made").mkdir()
    shutil.copy(prose, tmp_path / "made" / "text.txt")
    monkeypatch.chdir(tmp_path / "made")
    words = going_on(Path(), Path("text.txt"), "--train.steps=6")
    run_command(train, words, takes_files=True)
    (tmp_path / "used").mkdir()
    monkeypatch.chdir(tmp_path / "used")
    shutil.move(tmp_path / "made" / "run", "own")
    shutil.move(tmp_path / "made" / "text.txt", "own.txt")
    stores = str(tmp_path / "made" / "prepared")
    assert Path(stores).is_dir()
    asking: list[tuple[Any, list[str]]] = [
        (evaluate, ["own"]),
        (replay, ["own", "--step=3"]),
        (explain, ["own"]),
    ]
    for function, asked in asking:
        capsys.readouterr()
        run_command(function, asked, status=3)
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        assert "--corpus PATH" in error
    run_command(generate, ["own", "--max_new_tokens=3"])  # needs neither
    assert "--corpus PATH" in open_run(Path("own"), print).missing[0]
    run_command(evaluate, ["own", f"--prepared={stores}"])  # The tokens alone are enough.
    assert not Path("prepared").exists()
    moved = MovedConfig(corpus="own.txt")
    assert (
        open_run(Path("own"), print, moved).missing == []
    )  # It makes the tokens anew, and so for the others:
    run_command(replay, ["own", "--step=3"])
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["loss_equal"]
    assert find_subject(Path("own"), print).step == 6
    Path("other.txt").write_text(prose.read_text() + "and more")
    run_command(evaluate, ["own", "--corpus=other.txt"], status=4)
    assert "other data" in capsys.readouterr().err
    words = going_on(Path(), Path("own.txt"), "--train.run=own", "--train.log_interval=3", "--train.steps=6")
    run_command(train, words, takes_files=True)
    assert "train.log_interval: 1 -> 3" in capsys.readouterr().out


def test_a_start_under_other_versions_says_so_once(
    folder: Path, prose: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = folder / "run" / "environment.json"
    first = json.loads(file.read_text())
    file.write_text(json.dumps(first | {"versions": first["versions"] | {"jax": "0.0.1"}, "threads": 999}))
    run_command(train, going_on(folder, prose, "--train.steps=7", AGREED), takes_files=True)
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "last start" in line]
    assert f"jax 0.0.1 -> {jax.__version__}; threads 999 -> " in line
    after = json.loads(file.read_text())
    assert [after["step"], *(start["step"] for start in after["earlier"])] == [6, 0]
    assert after["earlier"][0]["command"] == first["command"]
    run_command(train, going_on(folder, prose, "--train.steps=7"), takes_files=True)  # nothing left to do
    assert "last start" not in capsys.readouterr().err
    assert json.loads(file.read_text()) == after
