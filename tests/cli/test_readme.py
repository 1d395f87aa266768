"""The documents' commands run, in their order, as they stand there (with shorter training); the README's tree
and the list of files in docs/architecture.md are what is there.
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
DOCUMENTS = README + (ROOT / "docs" / "commands.md").read_text()
ARCHITECTURE = (ROOT / "docs" / "architecture.md").read_text()
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
    """The words of every `python -m llm_jax.COMMAND ...` in the documents' blocks, from the command on."""
    blocks = "\n".join(re.findall(r"^```bash\n(.*?)^```", DOCUMENTS, re.MULTILINE | re.DOTALL))
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
            command.run(
                COMMANDS[function],
                words,
                takes_files=function in ("train", "profile"),
                without_files=train.FIRST_RUN if function == "train" else None,
            )
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


def test_its_tree_names_every_command_and_room_and_it_is_short() -> None:
    tree = README.split("## The tree")[1].split("```")[1]
    package = ROOT / "llm_jax"
    rooms = [f"{path.name}/" for path in package.iterdir() if path.is_dir() and path.name[0] != "_"]
    commands = [path.stem for path in package.glob("*.py") if path.name[0] != "_"]
    assert not [name for name in (*rooms, *commands) if not re.search(rf"(^|\s){name}(\s|$)", tree)]
    assert README.count("\n") < 150


def test_the_architecture_names_every_file_in_its_room() -> None:
    rooms = ARCHITECTURE.split("## The rooms")[1].split("## ")[0]
    missing = []
    for path in (ROOT / "llm_jax").rglob("*.py"):
        inside = path.relative_to(ROOT / "llm_jax").parts
        if len(inside) > 1 and path.name[0] != "_":
            of_room = re.split(r"\*\*\w+\*\*", rooms.split(f"**{inside[0]}**")[-1])[0]
            if not re.search(rf"`{path.stem}`", of_room):
                missing.append(str(path))
    assert not missing
    there = {path.stem for path in (ROOT / "llm_jax").rglob("*.py")}
    named = set(re.findall(r"`([a-z_]+)`", rooms))
    assert named <= there


def test_make_targets_that_it_names_exist() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"\bmake ([a-z]+)", README)) - {"it"} <= targets


def test_its_pictures_are_there_and_small() -> None:
    pictures = [ROOT / path for path in re.findall(r"!\[[^]]*\]\(([^)]*)\)", README)]
    assert len(pictures) == 2
    for picture in pictures:
        assert picture.read_bytes().startswith(b"\x89PNG")
        assert picture.stat().st_size < 300_000
