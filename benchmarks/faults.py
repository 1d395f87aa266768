"""Faults planted in every phase of train, import and export, against the promises: no traceback, nothing
hangs, no start at 0 where a checkpoint is, at most one save interval lost, and after the fault the same
command ends with the bits of one that met none.

python benchmarks/faults.py [--faults NAME ...] [--phases NAME ...] [--workers 2] [--json FILE]

Each command waits as it enters a phase until its fault is planted (a signal comes up to a tenth of a second
later), and then goes on. Phases of a run are met where it begins ("fresh") and where it goes on from a
checkpoint. Prints a line for each: the status, how many steps were lost, the last line that was written. A
full disk needs a small file system of its own, which is mounted where the system allows it; else that fault
is left out, and a line says so. Exit status 1 if a promise did not hold.
"""

import argparse
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).parents[1]))
import jax
import numpy as np

from benchmarks.planting import FAULTS, FROM_THE_START, Command, Fault, can_mount, disk
from llm_jax.checkpoints.reader import read_state
from llm_jax.checkpoints.step_files import saved_steps
from llm_jax.config.run import Config
from llm_jax.proofs.resume import differences, last_logged_step, place

STEPS, HALF, SAVE_INTERVAL = 12, 4, 2
SETTINGS = """
[model]
context_length = 16
d_model = 32
num_layers = 1
num_heads = 2
positions = "rotary"
norm = "rms"
activation = "silu"
gated_mlp = true
output_bias = false
mlp_bias = false
head_bias = false
dropout = 0.0

[data]
corpus = "text.txt"
prepared = "prepared"
tokenizer = "bpe"
bpe_vocab_size = 300
compact_vocab = false

[train]
run = "run"
batch_size = 4
eval_interval = 4
save_interval = 2
log_interval = 1
steps_per_dispatch = 1
sample_tokens = 8
prompt = "The"
"""
TRAIN = ("llm_jax.train", "run.toml", f"--train.steps={STEPS}")


class Phase(NamedTuple):
    """Where in which command a fault is planted."""

    words: tuple[str, ...]
    point: str | None = None
    fresh: bool = False  # without the first half of the run
    made: str = "run"  # what the command makes


def phases() -> dict[str, Phase]:
    """All of them, by name."""
    training = {
        "prepare": "llm_jax.runs.data:prepare_store",
        "compile": "llm_jax.runs.train:lower_steps",
        "first step": "llm_jax.training.loop:run_steps",
        "save": "llm_jax.checkpoints.writer:write_step",
        "evaluation": "llm_jax.runs.data:Materials.evaluate",
        "sample": "llm_jax.runs.observer:draw_sample",
        "report": "llm_jax.runs.observer:Observer._leave_report",
    }
    first_words = ("import", "theirs", "ours"), ("export", "run", "out", "--format=huggingface")
    importing, exporting = (("llm_jax.convert", *words) for words in first_words)
    return {
        **{f"fresh {name}": Phase(TRAIN, point, fresh=True) for name, point in training.items()},
        **{name: Phase(TRAIN, point) for name, point in training.items()},
        "import: read": Phase(importing, "llm_jax.interop.import_model:import_params", made="ours"),
        "import: save": Phase(importing, "llm_jax.interop.import_model:save_model", made="ours"),
        "import: compare": Phase(importing, "llm_jax.interop.import_model:require_tensors", made="ours"),
        "export: read": Phase(exporting, "llm_jax.interop.export_model:load", made="out"),
        "export: write": Phase(exporting, "llm_jax.interop.export_model:write_directory", made="out"),
        "export: compare": Phase(exporting, "llm_jax.interop.export_model:_require_same_logits", made="out"),
    }


# In this order, so that the export is that of half a run, as where faults are planted.
WHOLE = {
    "import": phases()["import: read"]._replace(point=None),
    "export": phases()["export: read"]._replace(point=None),
    "train": Phase(TRAIN),
}
# The exit statuses that a fault may end a command with; 0: it did its work all the same. A signal that comes
# when all is done ends the process as signals do, which a shell calls 128 and the signal's number, too.
_ASKED = {
    name: {0, 75, 128 + getattr(signal, name), -getattr(signal, name)}
    for name in ("SIGTERM", "SIGINT", "SIGHUP", "SIGUSR1")
}
_STATUSES = (
    {name: {0, 2, 3, 4, 74} for name in FAULTS | FROM_THE_START}
    | _ASKED
    | {"SIGKILL": {-signal.SIGKILL}}
    # XLA and LLVM abort the process where memory is short, which nothing of ours can answer.
    | {"memory limit": {0, 2, 3, 4, 71, 74, -signal.SIGABRT}}
)

# While nothing can be saved a run goes on, says so at every save, and ends with status 4: all since the last
# save that could be is lost.
_UNSAVEABLE = {"full disk", "read-only folder", "memory limit"}
# What a run of which nothing was ever saved says, and that its user removes.
_NEVER_SAVED = "a run does not begin anew by itself"


def prepare(folder: Path) -> None:
    """Makes what faults are planted beside: half a run, a model to import; and what comes out without any."""
    half, straight = folder / "half", folder / "straight"
    half.mkdir()
    lines = [f"The customer of line {number} asked for {number * number} apples." for number in range(400)]
    (half / "text.txt").write_text("\n".join(lines))
    (half / "run.toml").write_text(SETTINGS)
    # The first evaluation is that of step 4, which is saved before the signal is obeyed.
    first = Command(half, "llm_jax.runs.data:Materials.evaluate", TRAIN, FAULTS["SIGTERM"], folder / "log")
    first.finish()
    _do(half, "llm_jax.convert", "export", "run", "theirs", "--format=huggingface")
    shutil.copytree(half, straight)
    for phase in WHOLE.values():
        _do(straight, *phase.words)


def _do(folder: Path, *words: str, refusal: str = "") -> str:
    """Runs a command that no fault meets; gives what it wrote. Refused so, once more without a run."""
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    done = subprocess.run(
        [sys.executable, "-m", *words], cwd=folder, env=environment, capture_output=True, text=True
    )
    if refusal and refusal in done.stderr:
        shutil.rmtree(folder / "run")
        return _do(folder, *words)
    if done.returncode:
        raise RuntimeError(f"{' '.join(words)} ended with {done.returncode}: {done.stderr[-500:]}")
    return done.stdout


class Row(NamedTuple):
    """What came of a fault."""

    fault: str
    phase: str
    status: int
    lost: int  # steps that were logged and must be done again
    said: str  # the last line, where somebody could read it
    broken: list[str]  # promises that did not hold


def plant(base: Path, fault_name: str, fault: Fault, phase_name: str, phase: Phase) -> Row:
    """Does a command with a fault, then again without, and judges both."""
    with tempfile.TemporaryDirectory() as name, disk(Path(name) / "here", fault.own_disk) as folder:
        shutil.copytree(base / "half", folder, dirs_exist_ok=True)
        if phase.fresh:
            shutil.rmtree(folder / "run")
        if phase_name.endswith("prepare"):
            shutil.rmtree(folder / "prepared")
        run = folder / "run"
        saved_before = _newest(run)
        command = Command(folder, phase.point, phase.words, fault, Path(name) / "log")
        text = command.finish()
        command.lift()
        saved, lost = _newest(run), max(0, last_logged_step(run) - max(0, _newest(run)))
        promises = {
            "it hung": not command.hung,
            "the phase was not reached": command.reached or not phase.point,
            "a traceback": not any(mark in text for mark in ("Traceback", "Exception ignored", "FATAL")),
            f"status {command.process.returncode}": command.process.returncode in _STATUSES[fault_name],
            f"{lost} steps lost": lost <= SAVE_INTERVAL or fault_name in _UNSAVEABLE,
            "a checkpoint is gone": saved >= saved_before and not [*run.glob("checkpoints/rejected-*")],
        }
        made = _is_made(folder / phase.made) and phase.made != "run"
        if made:
            promises["what it left differs"] = _same(phase, base / "straight", folder)
        else:
            try:
                again = _do(folder, *phase.words, refusal=_NEVER_SAVED if saved < 0 else "")
                goes_on = phase.made != "run" or saved <= 0 or f"continuing run at step {saved}" in again
                promises["it began anew"] = goes_on
                promises["the end differs"] = _same(phase, base / "straight", folder)
            except RuntimeError as error:
                promises[str(error)] = False
        names, wanted = ({path.name for path in each.iterdir()} for each in (folder, base / "straight"))
        promises[f"left behind: {', '.join(names - wanted)}"] = names <= wanted
    lines = [line for line in text.replace("\r", "\n").splitlines() if line.strip()]
    broken = [what for what, holds in promises.items() if not holds]
    return Row(fault_name, phase_name, command.process.returncode, lost, lines[-1] if lines else "", broken)


def _is_made(path: Path) -> bool:
    """Whether a command's result is there: an import is once it has a checkpoint."""
    return path.exists() and (path.name != "ours" or _newest(path) >= 0)


def _newest(run: Path) -> int:
    """The newest step that is saved; -1 for none."""
    return max(saved_steps(run / "checkpoints"), default=-1)


def _same(phase: Phase, straight: Path, folder: Path) -> bool:
    """Whether a command made the same, to the bit, as without a fault."""
    if phase.made == "run":
        found = differences(*(place(Config(), each / "run") for each in (straight, folder)))
        return not (found["differing_leaves"] or found["differing_losses"])
    if phase.made == "out":
        return _sums(straight / "out") == _sums(folder / "out")
    states = [read_state(each / phase.made / "checkpoints") for each in (straight, folder)]
    return all(
        np.asarray(a).tobytes() == np.asarray(b).tobytes()
        for a, b in zip(*map(jax.tree.leaves, states), strict=True)
    )


def _sums(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


def main() -> None:
    everything, from_start = phases(), {f"whole {name}": phase for name, phase in WHOLE.items()}
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--faults", nargs="+", choices=[*FAULTS, *FROM_THE_START], metavar="NAME")
    parser.add_argument("--phases", nargs="+", choices=[*everything, *from_start], metavar="NAME")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    tries = [(fault, phase) for phase in everything for fault in FAULTS]
    tries += [(fault, phase) for phase in from_start for fault in FROM_THE_START]
    tries = [
        (fault, phase)
        for fault, phase in tries
        if fault in (options.faults or [fault]) and phase in (options.phases or [phase])
    ]
    if any((FAULTS | FROM_THE_START)[fault].own_disk for fault, _ in tries) and not can_mount():
        print("left out: full disk (a small file system cannot be mounted here)")
        tries = [(fault, phase) for fault, phase in tries if not FAULTS.get(fault, Fault()).own_disk]

    with tempfile.TemporaryDirectory() as name, ThreadPoolExecutor(options.workers) as workers:
        base = Path(name)
        os.environ |= {
            "JAX_COMPILATION_CACHE_DIR": str(base / "compiled"),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        }
        prepare(base)

        faults, named, rows = FAULTS | FROM_THE_START, everything | from_start, []
        for row in workers.map(lambda one: plant(base, one[0], faults[one[0]], one[1], named[one[1]]), tries):
            rows.append(row)
            verdict = f"BROKEN: {'; '.join(row.broken)}" if row.broken else "holds"
            print(
                f"{row.phase:18}{row.fault:24}{row.status:4} {row.lost} lost  {verdict}  | {row.said[:110]}",
                flush=True,
            )
    broken = [row for row in rows if row.broken]
    print(json.dumps({"holds": not broken, "tries": len(rows), "broken": len(broken)}))
    if options.json:
        options.json.write_text(json.dumps([row._asdict() for row in rows], indent=1) + "\n")
    if broken:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
