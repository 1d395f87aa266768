"""Help, version, short names and usage errors, as every command has them."""

import importlib
import os
import re
import subprocess
import sys
import tomllib
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from llm_jax.__main__ import COMMANDS, MODULES
from llm_jax.base.errors import INPUT_OUTPUT, NO_MEMORY, PROOF_FAILED, UserError
from llm_jax.cli.help import ALIASES, COMMON
from llm_jax.config.load import named_configs, to_dict
from llm_jax.config.run import Config
from llm_jax.train import train
from tests.conftest import ROOT
from tests.support.commands import run_command

MODULE = {name: importlib.import_module(f"llm_jax.{MODULES.get(name, name)}") for name in COMMANDS}
FUNCTIONS: dict[str, Any] = {name: getattr(module, name) for name, module in MODULE.items()}
CALLS = [[name] for name in COMMANDS] + [["convert", "import"], ["convert", "export"], ["verify", "width"]]


def settings() -> set[str]:
    return {f"{section}.{name}" for section, values in to_dict(Config()).items() for name in values}


def help_of(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    run_command(FUNCTIONS[words[0]], words[1:], takes_files=words[0] in ("train", "profile"))
    return capsys.readouterr().out


@pytest.mark.parametrize("words", CALLS, ids=" ".join)
def test_every_command_says_its_version(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert help_of([*words, "--version"], capsys) == f"llm-jax {version('llm-jax')}\n"


@pytest.mark.parametrize("columns", [60, 80, 140])
@pytest.mark.parametrize("words", CALLS, ids=" ".join)
def test_no_help_is_wider_than_the_terminal_but_for_what_is_pasted(
    words: list[str], columns: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    lines = help_of([*words, "--help-all"], capsys).splitlines()
    assert lines[0].startswith(f"Usage: llm-jax {' '.join(words)}")
    wide = [line for line in lines[1:] if len(line.rstrip()) > columns and not line.startswith("  llm-jax ")]
    assert not wide


def test_help_shows_fifteen_settings_in_four_groups_and_help_all_every_one(
    capsys: pytest.CaptureFixture[str],
) -> None:
    few, every = (help_of(["train", word], capsys) for word in ("--help", "--help-all"))
    assert len(COMMON) == 15
    assert settings() >= COMMON
    shown = [set(re.findall(r"--((?:model|data|optim|train|task)\.\w+)", text)) for text in (few, every)]
    options = [found & settings() for found in shown]
    assert options[1] == settings()
    assert options[0] - COMMON <= {"train.init_from"}
    assert options[0] >= COMMON
    titles = ("Model", "Data", "Optimizer", "Run")
    assert [line for line in few.splitlines() if line in titles] == list(titles)
    assert "--help-all: all settings" in few


# What a run starts from is looked at before its other settings: tests/tasks/test_fit.py gives it so.
@pytest.mark.parametrize("short", [name for name in ALIASES if name != "--from"])
def test_a_short_name_is_its_setting(
    short: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    section, name = ALIASES[short].removeprefix("--").split(".")
    told: list[Any] = []
    monkeypatch.setattr(MODULE["train"], "_train", lambda depth, time, config, *_, **__: told.append(config))
    for words in ([short, "7"], [f"{short}=7"], [ALIASES[short], "9", short, "7"]):  # the last one wins
        run_command(train, words, takes_files=True)
    assert [str(getattr(getattr(config, section), name)) for config in told] == ["7"] * 3
    assert f"{short}, {ALIASES[short]}" in help_of(["train", "--help-all"], capsys)


def test_the_last_of_two_wins_for_flags_too_and_lists_keep_both(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[Any] = []
    monkeypatch.setattr(MODULE["train"], "_train", lambda depth, time, config, *_, **__: told.append(config))
    run_command(train, ["--data.compact_vocab", "--data.no-compact_vocab", "--depth=2", "--depth", "3"])
    assert not told[0].data.compact_vocab
    monkeypatch.setattr("llm_jax.language_model.model.load", lambda directory, **_: told.append(directory))
    together: list[Any] = []
    monkeypatch.setattr(
        MODULE["generate"], "_print_together", lambda model, prompts, *_: together.append(prompts)
    )
    run_command(FUNCTIONS["generate"], ["x", "--prompt", "a", "--prompt", "b"])
    assert together == [["a", "b"]]


def test_a_configuration_goes_by_its_name_too(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    told: list[Any] = []
    monkeypatch.setattr(MODULE["train"], "_train", lambda depth, time, config, *_, **__: told.append(config))
    assert len(named_configs()) > 5
    for name, path in named_configs().items():
        origin = ["--train.init_from=somewhere"] if name.startswith("finetune") else []
        monkeypatch.setattr("llm_jax.runs.init_from.inherited_settings", lambda *_: {})
        for word in (name, str(path)):
            run_command(train, [word, *origin], takes_files=True)
        assert told[-1] == told[-2]
    Path("tutorial").write_text("[train]\nsteps = 3\n")  # a file that is there is meant
    run_command(train, ["tutorial"], takes_files=True)
    assert told[-1].train.steps == 3


NO_VALUE = "--data.compact_vocab takes no value; use --data.no-compact_vocab to switch it off"
NO_FILE = "configuration file nothing does not exist; llm-jax configs lists those that come along"


def test_the_wheel_has_the_configurations_where_they_are_looked_for() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    included = project["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"]
    assert included["configs"] == "llm_jax/configs"
    assert {path.parent for path in named_configs().values()} == {ROOT / "configs"}


def test_a_failed_proof_has_a_status_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llm_jax.proofs.tutorial.prove", lambda golden: False)
    run_command(FUNCTIONS["verify"], ["parity", "golden.npz"], PROOF_FAILED)
    others = {kind.exit_status for kind in (UserError, *UserError.__subclasses__())}
    assert PROOF_FAILED not in {0, 1, NO_MEMORY, INPUT_OUTPUT, *others}
    assert f"{PROOF_FAILED} a proof of `verify` failed" in (ROOT / "docs" / "commands.md").read_text()


USAGE = {
    ("train", "nothing"): NO_FILE,
    ("train", "tutorail"): "configuration file tutorail does not exist; did you mean tutorial?",
    ("train", "--data.compact_vocab", "true"): f"{NO_VALUE}. See: llm-jax train --help",
    ("train", "--depth", "2", "3"): "Unexpected word: 3. See: llm-jax train --help",
    ("generate", "a", "b"): "Unexpected word: b. See: llm-jax generate --help",
}


@pytest.mark.parametrize("words", USAGE, ids=" ".join)
def test_a_usage_error_is_one_line_and_status_2(
    words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    run_command(FUNCTIONS[words[0]], list(words[1:]), 2, takes_files=words[0] == "train")
    assert capsys.readouterr().err == f"error: {USAGE[words]}\n"


def test_completion_knows_commands_and_settings(tmp_path: Path) -> None:
    surroundings = os.environ | {"HOME": str(tmp_path)}
    shell = [sys.executable, "-m", "llm_jax", "--install-completion"]
    done = subprocess.run([*shell, "bash"], capture_output=True, text=True, env=surroundings)
    assert (done.returncode, done.stderr) == (0, "")
    script = tmp_path / ".local/share/bash-completion/completions/llm-jax"
    assert done.stdout == f"completion is in {script}; it works in the next shell\n"
    words = "COMP_WORDS=(llm-jax train --train.st); COMP_CWORD=2"
    ask = f"source {script}; {words}; _llm_jax; echo ${{COMPREPLY[@]}}"
    offered = subprocess.run(["bash", "-c", ask], capture_output=True, text=True, env=surroundings)
    assert offered.stdout.split() == ["--train.steps", "--train.steps_per_dispatch"]
    wrong = subprocess.run([*shell, "tcsh"], capture_output=True, text=True, env=surroundings)
    assert (wrong.returncode, wrong.stderr) == (
        2,
        "error: --install-completion must be one of bash, zsh, fish; got tcsh\n",
    )
