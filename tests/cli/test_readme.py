"""The README's commands run, in its order, as they stand there (with shorter training), and its tree is the
tree.
"""

import io
import re
from pathlib import Path

import pytest

from llm_jax import (
    chat,
    convert,
    evaluate,
    explain,
    generate,
    prepare,
    profile,
    replay,
    report,
    train,
    verify,
)
from llm_jax.cli import command
from tests.conftest import ROOT

pytestmark = pytest.mark.compiles

README = (ROOT / "README.md").read_text()
COMMANDS = {
    "prepare": prepare.prepare,
    "train": train.train,
    "evaluate": evaluate.evaluate,
    "generate": generate.generate,
    "chat": chat.chat,
    "replay": replay.replay,
    "profile": profile.profile,
    "convert": convert.convert,
    "verify": verify.verify,
    "explain": explain.explain,
    "report": report.report,
}
SHORT = ["--train.eval_interval=4", "--train.sample_tokens=4"]


def commands() -> list[list[str]]:
    """The words of every `python -m llm_jax.COMMAND ...` in the README's blocks, from the command on."""
    blocks = "\n".join(re.findall(r"^```bash\n(.*?)^```", README, re.MULTILINE | re.DOTALL))
    found = re.findall(r"^python -m llm_jax\.(.*)$", blocks, re.MULTILINE)
    return [[word.strip('"') for word in re.findall(r'"[^"]*"|\S+', line)] for line in found]


def test_its_commands_run(
    tmp_path: Path, prose: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    for name in ("my_book.txt", "other_book.txt"):
        (tmp_path / name).write_text(prose.read_text())
    (tmp_path / "words.jinja").write_text("{{ messages[-1].content }}")
    words_of = commands()
    assert {words[0] for words in words_of} == COMMANDS.keys()
    for function, *words in words_of:
        if function == "train":
            words = [word for word in words if word not in ("--train.steps", "2000")]
            words += [*SHORT, "--train.steps=4", "--model.num_layers=2"]
        if function == "replay":
            words = ["3" if word == "1234" else word for word in words]
        if function == "chat":  # an open model is not here
            words = ["runs/mine", "--template", "words.jinja", "--max_new_tokens=4"]
            monkeypatch.setattr("sys.stdin", io.StringIO("Hello"))
        with pytest.raises(SystemExit) as stop:
            command.run(COMMANDS[function], words, takes_files=function in ("train", "profile"))
        assert stop.value.code == 0, (function, words, capsys.readouterr().err)


def test_its_python_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, prose: Path) -> None:
    monkeypatch.chdir(tmp_path)
    places = [f"--data.corpus={prose}", f"--data.prepared={tmp_path}", "--train.run=runs/mine"]
    with pytest.raises(SystemExit):
        command.run(
            train.train, [*places, *SHORT, "--train.steps=4", "--model.num_layers=2"], takes_files=True
        )
    (block,) = re.findall(r"^```python\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
    names: dict[str, object] = {}
    exec(compile(block, "README.md", "exec"), names)  # noqa: S102 - our own README
    assert names["logits"].shape[1] == names["model"].config.vocab_size  # type: ignore[attr-defined]


def test_its_tree_names_every_file() -> None:
    tree = README.split("## The tree")[1].split("```")[1]
    missing = [
        path.name
        for path in (ROOT / "llm_jax").rglob("*.py")
        if not path.name.startswith("__") and not re.search(rf"\b{path.stem}\b", tree)
    ]
    assert not missing
    folders = ("llm_jax", "configs", "tests", "benchmarks")
    there = {path.name for folder in folders for path in (ROOT / folder).rglob("*.*")} | {"pyproject.toml"}
    assert set(re.findall(r"\b(\w+\.(?:py|toml))\b", tree)) <= there


def test_make_targets_that_it_names_exist() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"\bmake ([a-z]+)", README)) - {"it"} <= targets


def test_its_pictures_are_there_and_small() -> None:
    pictures = [ROOT / path for path in re.findall(r"!\[[^]]*\]\(([^)]*)\)", README)]
    assert len(pictures) == 2
    for picture in pictures:
        assert picture.read_bytes().startswith(b"\x89PNG")
        assert picture.stat().st_size < 300_000
