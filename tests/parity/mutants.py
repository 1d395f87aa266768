"""Does the proof beside transformers see a fault? Each mutant in mutants.toml is one, and must fail it.

python tests/parity/mutants.py [WORD ...]     (some minutes; only mutants whose name has one of the words)

The package is copied, a line changed in the copy, and one family's tests run on it. A line that is no longer
there, or is there twice, is an error; so is a mutant that survives, or one that cannot be run at all.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.progress import track

ROOT = Path(__file__).parents[2]
TESTS = (
    "test_logits_loss_and_gradients_equal_transformers_in_float64",
    "test_logits_equal_transformers_and_so_do_those_of_what_is_exported",
)


class Mutant(NamedTuple):
    """A fault, and the family (of families.py) whose proof must see it."""

    name: str
    file: str
    line: str
    wrong: str
    family: str


def complaint(mutant: Mutant) -> str | None:
    """What the family's tests say of a copy of the package with this fault; None where they pass."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder)
        for name in ("llm_jax", "tests"):
            shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(ROOT / "pyproject.toml", copy)
        file = copy / "llm_jax" / mutant.file
        text = file.read_text(encoding="utf-8")
        if (times := text.count(mutant.line)) != 1:
            sys.exit(f"{mutant.name}: {mutant.file} must have {mutant.line!r} once, but has it {times} times")
        file.write_text(text.replace(mutant.line, mutant.wrong), encoding="utf-8")
        tests = [f"tests/parity/test_families.py::{test}[{mutant.family}]" for test in TESTS]
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-x", "-p", "no:cacheprovider", *tests],
            cwd=copy,
            env=os.environ | {"PYTHONPATH": folder},
            capture_output=True,
            text=True,
        )
    said = [line.removeprefix("E").strip() for line in done.stdout.splitlines() if line.startswith("E  ")]
    if done.returncode == 0:
        return None
    if done.returncode != 1 or not said or said[0].startswith(("NameError", "SyntaxError", "TypeError")):
        sys.exit(f"{mutant.name} could not be run:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return said[0]


def main(words: list[str]) -> None:
    table = tomllib.loads((Path(__file__).parent / "mutants.toml").read_text(encoding="utf-8"))
    mutants = [Mutant(**entry) for entry in table["mutant"]]
    chosen = [mutant for mutant in mutants if not words or any(word in mutant.name for word in words)]
    console, survivors = Console(highlight=False, soft_wrap=True), []
    for mutant in track(chosen, "mutants", console=console):
        said = complaint(mutant)
        if said is None:
            survivors.append(mutant.name)
        console.print(
            f"{'SURVIVED' if said is None else 'caught'}: {mutant.name} ({mutant.family})  {said or ''}",
            markup=False,
        )
    console.print(f"{len(chosen) - len(survivors)} of {len(chosen)} caught")
    sys.exit(bool(survivors))


if __name__ == "__main__":
    main(sys.argv[1:])
