"""The house's rules, read off the code: floors, rooms, library homes, sizes, and no dead setting."""

import ast
import dataclasses
import importlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from llm_jax.config.model import RotaryConfig
from llm_jax.config.run import Config

PACKAGE = Path(__file__).parents[1] / "llm_jax"
SCHEMAS = ("config/run.py", "config/model.py", "config/decoding.py")
FLOOR_OF_ROOM = {
    "base": 0,
    "config": 0,
    "tokenization": 1,
    "checkpoints": 1,
    "data": 2,
    "model": 2,
    "parallel": 2,
}
FLOOR_OF_ROOM |= dict.fromkeys(("training", "inference", "evaluation", "walkthrough"), 3)
FLOOR_OF_ROOM |= dict.fromkeys(("language_model", "interop"), 4)
DOORS = {"prepare", "train", "evaluate", "generate", "convert", "verify", "replay", "explain", "report"}
DOORS |= {"profile", "chat", "harness"}
# Library -> the only places, by the beginning of their path, that may import it.
HOMES = {
    "flax": ("model/",),
    "orbax": ("checkpoints/step_folder.py",),
    "optax": ("training/",),
    "grain": ("data/",),
    "tiktoken": ("tokenization/",),
    "tokenizers": ("tokenization/",),
    "urllib": ("data/download.py",),
    "matplotlib": ("walkthrough/",),
    "jinja2": ("display/page.py", "tokenization/template_sandbox.py"),
    "latex2mathml": ("walkthrough/",),
    "pickle": ("interop/pytorch/pickle_reader.py",),
    "safetensors": ("interop/",),
    "gguf": ("interop/gguf/types.py",),
    "llguidance": ("inference/grammar.py",),
    "lm_eval": ("language_model/lm_eval.py",),
    "tensorboardX": ("runs/tensorboard.py",),
    "cyclopts": ("config/rules.py", "config/load.py", "cli/command.py", *(f"{door}.py" for door in DOORS)),
    "jax": (
        "language_model/",
        "interop/import_model.py",
        "base/",
        "model/",
        "checkpoints/",
        "training/",
        "inference/",
        "walkthrough/lesson.py",
        *(
            f"{name}.py"
            for name in (
                "inside",
                "rerun",
                "proof",
                "resume",
                "verify",
            )
        ),
        "profiling/measure.py",
    ),
    "sentencepiece": (),
    "torch": (),
    "transformers": (),
}


def imports_of(source: str) -> Iterator[str]:
    """Every imported module by its full dotted name, wherever the import stands."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative import"
            yield node.module or ""
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def place(module: str) -> tuple[int, str]:
    """(floor, room) of a module of ours, 'llm_jax.data.store' or 'data/store.py' alike."""
    parts = module.removeprefix("llm_jax.").removesuffix(".py").replace("/", ".").split(".")
    if parts[0] in FLOOR_OF_ROOM:
        return FLOOR_OF_ROOM[parts[0]], parts[0]
    return 4, parts[0]


def faults(path: str, source: str) -> Iterator[str]:
    """Everything in a file of the package that breaks a rule."""
    floor, room = place(path)
    for name in imports_of(source):
        if name.startswith("llm_jax."):
            other_floor, other_room = place(name)
            if other_floor > floor or (other_floor == floor and 0 < floor < 4 and other_room != room):
                yield f"{path} (floor {floor}) imports {name} (floor {other_floor})"
        library = name.split(".")[0]
        if library in HOMES and not path.startswith(HOMES[library]):
            yield f"{path} imports {library}"
    limit = 150 if room in DOORS and floor == 4 else 300
    if (lines := source.count("\n")) > limit:
        yield f"{path} has {lines} lines, at most {limit}"
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef) and (node.end_lineno or 0) - node.lineno > 70:
            yield f"{path}:{node.name} has {(node.end_lineno or 0) - node.lineno} lines"
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Name)
            and node.func.id in ("eval", "exec")
        ):
            yield f"{path} calls {node.func.id}"
        if isinstance(node, ast.Name) and node.id == "print" and path != "base/terminal.py":
            yield f"{path} prints past base/terminal.py"
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Console":
            yield f"{path} has a console past base/terminal.py"
    for word in ("TODO", "FIXME", "NotImplementedError"):
        if word in source:
            yield f"{path} has {word}"
    if not ast.get_docstring(ast.parse(source)) and source.strip():
        yield f"{path} has no docstring"


FILES = {str(path.relative_to(PACKAGE)): path.read_text() for path in sorted(PACKAGE.rglob("*.py"))}


@pytest.mark.parametrize("path", FILES)
def test_a_file_keeps_the_rules(path: str) -> None:
    assert list(faults(path, FILES[path])) == []


BROKEN = {
    "upward import": ("data/x.py", "from llm_jax.training import loop"),
    "import of a neighbour's room": ("training/x.py", "from llm_jax.inference.decode import prefill"),
    "word that imports a room": ("base/tree.py", "import llm_jax.model.decoder"),
    "hidden import": ("model/x.py", "def f():\n    from llm_jax.data import store"),
    "jax in data": ("data/x.py", "import jax.numpy as jnp"),
    "flax outside the model": ("training/x.py", "import flax"),
    "torch anywhere": ("convert.py", "import torch"),
    "pickle anywhere else": ("checkpoints/writer.py", "import pickle"),
    "long door": ("train.py", "x = 1\n" * 151),
    "long file": ("data/x.py", "x = 1\n" * 301),
    "long function": ("data/x.py", "def f():\n" + "    x = 1\n" * 72),
    "eval": ("data/x.py", "eval('1')"),
    "print": ("prepare.py", "print('a')"),
    "print as a report": ("prepare.py", "f(report=print)"),
    "console": ("prepare.py", "Console()"),
    "unfinished": ("data/x.py", "x = 1  # TODO"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_each_rule_can_fail(name: str) -> None:
    path, source = BROKEN[name]
    assert list(faults(path, '"""Doc."""\n' + source))


def settings_read() -> set[str]:
    """Names of all attributes that something outside the schemas reads."""
    others = (source for path, source in FILES.items() if path not in SCHEMAS)
    return {
        node.attr
        for source in others
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Attribute)
    }


def derived_settings() -> dict[str, str]:
    """Settings that are read through a property of their section."""
    derived = {"d_ff": "mlp_width", "d_head": "head_dim", "num_kv_heads": "kv_heads"}
    derived |= {"base_width": "width_ratio"}
    return derived | {"global_every": "sees_all", "fraction": "turned", "local_theta": "in_windows"}


@pytest.mark.parametrize(
    "kind",
    [*(field.type for field in dataclasses.fields(Config)), RotaryConfig],
    ids=lambda kind: kind.__name__,
)
def test_no_setting_is_dead_and_each_is_documented(kind: type) -> None:
    read = settings_read()
    body = next(
        node
        for path in SCHEMAS
        for node in ast.parse(FILES[path]).body
        if isinstance(node, ast.ClassDef) and node.name == kind.__name__
    ).body
    documented = {
        node.target.id
        for node, after in zip(body, body[1:], strict=False)
        if isinstance(node, ast.AnnAssign)
        and isinstance(node.target, ast.Name)
        and isinstance(after, ast.Expr)
    }
    for field in dataclasses.fields(kind):
        assert derived_settings().get(field.name, field.name) in read, (
            f"{kind.__name__}.{field.name} is read by nothing"
        )
        assert field.name in documented, f"{kind.__name__}.{field.name} has no description"


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
        and module != "llm_jax.language_model.lm_eval"
        and not hasattr(importlib.import_module(module), name)
    ]
