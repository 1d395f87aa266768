"""The commands of the documents and of every --help run, in their order, as they stand there (with shorter
training); the README's tree and the list of files in docs/architecture.md are what is there.
"""

import glob
import importlib
import inspect
import io
import re
from pathlib import Path
from typing import Any

import pytest
from cyclopts import App

from llm_jax.__main__ import COMMANDS, MODULES
from llm_jax.cli import command
from llm_jax.planning import by_time
from llm_jax.planning.first_run import FIRST_RUN
from llm_jax.planning.time_budget import Costs
from llm_jax.proofs import tutorial, width
from tests.conftest import ROOT
from tests.tasks.conftest import sentence_lines, sentences

pytestmark = pytest.mark.compiles

README = (ROOT / "README.md").read_text()
DOCUMENTS = README + (ROOT / "docs" / "commands.md").read_text()
ARCHITECTURE = (ROOT / "docs" / "architecture.md").read_text()
MODULE = {name: importlib.import_module(f"llm_jax.{MODULES.get(name, name)}") for name in COMMANDS}
FUNCTIONS: dict[str, Any] = {name: getattr(module, name) for name, module in MODULE.items()}
SHORT = ["--train.eval_interval=4", "--train.sample_tokens=4"]
TINY = ["--model.d_model=32", "--model.context_length=32", "--data.tokenizer=bytes"]
FITTED = ["--model.d_model=32", "--model.num_layers=1", "--data.bpe_vocab_size=290"]
OPEN_MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"
GATED = ["--model.gated_mlp", "--model.activation=silu"]
# What is not as it stands there, by the words that a command line begins with: words put in the place of
# others, then words put behind. The last of an option given twice counts, so --steps 2000 becomes 4 steps.
SHORTER: dict[str, tuple[dict[str, str], list[str]]] = {
    # A fifth of the time to compile, and a decoder that other programs have.
    "train --depth": ({"4": "2"}, [*SHORT, "--steps=4", *TINY, "--optim.optimizer=adamw", *GATED]),
    "train --time": ({"3m": "30s"}, [*TINY, "--model.num_layers=2"]),  # and costs that nobody measures
    "train": ({}, [*SHORT, "--steps=4", "--model.num_layers=2"]),
    "fit": ({}, ["--steps=4", *FITTED]),
    "replay": ({"1234": "3"}, []),
    "chat": ({"smollm2": "runs/mine"}, ["--template=words.jinja", "--max_new_tokens=4"]),
}


def documents() -> list[str]:
    """Every `llm-jax COMMAND ...` in the documents' blocks."""
    blocks = "\n".join(re.findall(r"^```bash\n(.*?)^```", DOCUMENTS, re.MULTILINE | re.DOTALL))
    return re.findall(r"^llm-jax .*$", blocks, re.MULTILINE)


def examples(name: str) -> list[str]:
    """Every example in a command's help, and in those of its own commands."""
    function = FUNCTIONS[name]
    apps = [function[each] for each in function if each[0] != "-"] if isinstance(function, App) else []
    texts = [inspect.getdoc(app.default_command) for app in apps] or [inspect.getdoc(function)]
    return [
        line.strip() for text in texts for line in re.findall(r"^  llm-jax .*$", text or "", re.MULTILINE)
    ]


def words_of(line: str) -> list[str]:
    """The words of a command line from the command on, with shorter training."""
    words = [word.strip('"') for word in re.findall(r'"[^"]*"|\S+', line)][1:]
    found = next((key for key in SHORTER if " ".join(words).startswith(key)), "")
    instead, behind = SHORTER.get(found, ({}, []))
    spread = [path for word in words for path in (sorted(glob.glob(word)) or [word])]  # as a shell does it
    return [*(instead.get(word, word) for word in spread), *behind]


@pytest.mark.parametrize("name", COMMANDS)
def test_every_help_has_examples_of_its_command(name: str) -> None:
    assert examples(name)
    assert all(line.startswith(f"llm-jax {name}") for line in examples(name))


def test_commands_run_in_their_order_from_an_empty_folder(
    tmp_path: Path, prose: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Given are books, texts with labels and a chat template; the open model is a tiny one of ours, exported.

    Of three commands only the line is read: lm-eval's data is not here, golden files come from torch
    (tests/parity), and widths take a minute (tests/proofs).
    """
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    for name in ("my_book.txt", "other_book.txt"):
        (tmp_path / name).write_text(prose.read_text())
    (tmp_path / "pages.jsonl").write_text('{"text": "<p>今天天气很好。</p>"}\n', encoding="utf-8")
    rows = ["text,label", *(f"{text},{label}" for text, label in sentences(80))]
    (tmp_path / "messages.csv").write_text("\n".join(rows) + "\n")
    (tmp_path / "treebank.conllu").write_text(sentence_lines())
    (tmp_path / OPEN_MODEL).parent.mkdir()  # a local path of a model's name wins over the hub
    (tmp_path / "words.jinja").write_text("{{ messages[-1].content }}")
    costs = Costs(elapsed=1, compile=1, step=4, evaluation=1, save=1, ending=1)
    monkeypatch.setattr(by_time, "measure", lambda *_: costs)
    monkeypatch.setattr(MODULE["harness"], "_run", lambda *_: None)
    monkeypatch.setattr(tutorial, "prove", lambda golden: golden == Path("golden.npz"))
    monkeypatch.setattr(width, "check", lambda *_: width.Checked(True, [], {}))
    lines = [*documents(), *(line for name in COMMANDS for line in examples(name))]
    assert {line.split()[1] for line in lines} == COMMANDS.keys()
    for line in dict.fromkeys(lines):
        monkeypatch.setattr("sys.stdin", io.StringIO("Hello"))
        if OPEN_MODEL in line:
            assert run(["convert", "export", "runs/deep", OPEN_MODEL, "--format=huggingface"]) == 0
        assert run(words_of(line)) == 0, (line, capsys.readouterr().err)
        capsys.readouterr()


def run(words: list[str]) -> Any:
    """The exit status of a command line, in this process."""
    with pytest.raises(SystemExit) as stop:
        command.run(
            FUNCTIONS[words[0]],
            words[1:],
            takes_files=words[0] in ("train", "profile"),
            without_files=FIRST_RUN if words[0] == "train" else None,
        )
    return stop.value.code


def test_its_python_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, prose: Path) -> None:
    monkeypatch.chdir(tmp_path)
    places = [f"--data.corpus={prose}", f"--data.prepared={tmp_path}", "--train.run=runs/mine"]
    assert run(["train", *places, *SHORT, "--train.steps=4", "--model.num_layers=2"]) == 0
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
