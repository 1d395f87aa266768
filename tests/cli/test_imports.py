"""What starting costs: importing the package and asking for help load nothing heavy."""

import subprocess
import sys

import pytest

from llm_jax.__main__ import COMMANDS, MODULES

HEAVY = ("jax", "flax", "orbax", "optax", "grain", "matplotlib", "torch", "tiktoken", "tokenizers", "numpy")
HEAVY += ("rich.markdown", "rich.progress", "importlib.metadata", "asyncio", "urllib.request")


def loaded_after(code: str, *words: str) -> tuple[set[str], str]:
    spy = f"{code}\nimport sys\nprint()\nprint(*[name for name in {HEAVY} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", spy, *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    *shown, last = done.stdout.splitlines()
    return set(last.split()), "\n".join(shown)


def test_importing_the_package_loads_nothing_heavy() -> None:
    assert loaded_after("import llm_jax")[0] == set()


def test_load_is_there_without_being_imported() -> None:
    assert loaded_after("import llm_jax; assert callable(llm_jax.load)")[0] >= {"jax"}
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        __import__("llm_jax").nothing  # noqa: B018


@pytest.mark.parametrize("function", COMMANDS)
def test_help_teaches_and_loads_nothing_heavy(function: str) -> None:
    module = MODULES.get(function, function)
    code = "import runpy, sys\nsys.argv = [sys.argv[1], '--help']\n"
    code += f"try: runpy.run_module('llm_jax.{module}', run_name='__main__')\n"
    code += "except SystemExit as stop: assert not stop.code"
    loaded, shown = loaded_after(code, function)
    assert loaded == set()
    assert f"Usage: llm-jax {function}" in shown


def llm_jax_command(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "llm_jax", *words], capture_output=True, text=True)


def test_the_console_script_lists_the_commands_and_knows_the_nearest() -> None:
    listing = llm_jax_command().stdout
    assert all(f"  {function}" in listing for function in COMMANDS)
    wrong = llm_jax_command("trian")
    assert (wrong.returncode, wrong.stderr) == (
        2,
        "error: unknown command 'trian' (did you mean 'train'?)\n",
    )
    assert llm_jax_command("--version").stdout.startswith("llm-jax ")
    assert "Usage: llm-jax generate" in llm_jax_command("generate", "--help").stdout
