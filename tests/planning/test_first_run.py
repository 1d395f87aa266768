"""A command line without a file runs configs/first.toml, and an own text gets settings that suit it."""

import io
import json
from contextlib import redirect_stdout
from pathlib import Path
from typing import Annotated

import pytest
from cyclopts import Parameter

from llm_jax.cli import command
from llm_jax.config.load import differences, find_config, read_config, to_dict
from llm_jax.config.run import Config
from llm_jax.planning.first_run import FIRST_RUN
from llm_jax.planning.text_rules import settings_for
from tests.support.awkward_paths import AWKWARD_NAMES
from tests.support.commands import run_command

ENGLISH = "She asked what the wheel was for, and listened to the whole answer. "
CHINESE = "老林打开店门，先听顾客说什么，然后才回答。"


def configured(words: list[str]) -> Config:
    """What a command with these words gets."""
    got: list[Config] = []
    noted: list[set[str]] = []

    def train(
        *,
        depth: int | None = None,
        config: Annotated[Config, Parameter(name="*")] = Config(),
        given: command.Given = command.NOTHING_GIVEN,
    ) -> None:
        got.append(config)
        noted.append(set(given))

    run_command(train, words, takes_files=True, without_files=FIRST_RUN)
    options = {word.partition("=")[0].removeprefix("--") for word in words if word.startswith("--")}
    assert options <= noted[0]
    assert noted[0] == options or words[0].endswith(".toml"), "what the first run says is a default"
    return got[0]


def test_nothing_given_is_the_first_run() -> None:
    assert configured([]) == read_config([find_config(Path("first"))])


def test_what_is_given_wins_and_a_short_run_warms_up_no_longer_than_it_lasts() -> None:
    config = configured(["--train.steps=5", "--model.d_model=64", "--train.run=x"])
    assert (config.train.steps, config.optim.warmup_steps) == (5, 5)
    assert (config.model.d_model, config.model.num_layers, config.train.run) == (64, 4, Path("x"))


def test_a_depth_stands_alone() -> None:
    assert configured(["--depth=3"]) == Config()


def test_a_file_stands_alone(tmp_path: Path) -> None:
    (tmp_path / "own.toml").write_text("[train]\nsteps = 7\n")
    config = configured([str(tmp_path / "own.toml")])
    assert (config.train.steps, config.model) == (7, Config().model)


def test_an_own_text_gets_a_run_of_its_own_which_options_still_change(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    book = tmp_path / "book.txt"
    book.write_text(ENGLISH * 300)  # 20 kB
    config = configured([f"--data.corpus={book}", "--model.dropout=0.4"])
    assert (config.train.run, config.train.prompt) == (Path("runs/book"), "She asked what the")
    assert (config.train.batch_size, config.model.dropout) == (8, 0.4)
    assert "settings for book" in capsys.readouterr().out


@pytest.mark.parametrize("kilobytes", [1, 20, 150, 300, 3000])
def test_epochs_and_steps_are_bounded(kilobytes: int) -> None:
    settings, _ = settings_for(ENGLISH * (kilobytes * 1000 // len(ENGLISH)))
    train = settings["train"]
    seen = train["steps"] * train["batch_size"] * 64
    assert 60 <= train["steps"] <= 400
    assert kilobytes < 20 or seen <= 16 * 0.8 * kilobytes * 1000 / 4.3
    assert train["steps"] >= train["eval_interval"] >= 1


def test_a_text_whose_letters_are_words_is_split_into_characters() -> None:
    assert settings_for(CHINESE * 300)[0]["data"] == {"tokenizer": "characters"}
    assert settings_for(ENGLISH * 300)[0]["data"] == {}
    assert settings_for(CHINESE * 300)[0]["train"]["prompt"] == CHINESE[:20]


def test_a_long_text_that_is_read_few_times_needs_little_dropout() -> None:
    assert settings_for(ENGLISH * 300)[0]["model"] == {}
    assert settings_for(ENGLISH * 40_000)[0]["model"]["dropout"] < 0.3


def test_a_run_that_exists_keeps_its_own_settings(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    book, run = tmp_path / "book.txt", tmp_path / "run"
    book.write_text(ENGLISH * 300)
    began = read_config([], [f"--train.run={run}", f"--data.corpus={book}", "--model.d_model=32"])
    (run / "checkpoints/5/llm_jax").mkdir(parents=True)
    (run / "config.json").write_text(json.dumps(to_dict(began)))
    assert configured([f"--train.run={run}"]) == began
    assert "settings: those that" in capsys.readouterr().out
    moved = run.rename(tmp_path / "moved")
    longer = configured([f"--train.run={moved}", f"--data.corpus={book}", "--train.steps=9000"])
    assert differences(longer, began) == [
        f"train.run: {moved} -> {run}",
        f"train.steps: 9000 -> {began.train.steps}",
    ]
    unspeakable = moved.rename(tmp_path / AWKWARD_NAMES["bytes that are no text"])
    (unspeakable / "config.json").write_text(json.dumps(to_dict(longer)))
    with redirect_stdout(
        io.TextIOWrapper(io.BytesIO(), errors="backslashreplace")
    ):  # as a terminal is opened
        assert configured([f"--train.run={unspeakable}"]).model == began.model
    moved = unspeakable.rename(moved)
    (moved / "config.json").write_text('{"train": 5}')
    assert configured([f"--train.run={moved}"]).model == configured([]).model
