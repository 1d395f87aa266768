"""One command in a process of its own, and one fault that is planted as it enters one of its phases.

python benchmarks/planting.py MODULE:FUNCTION#CALL PROGRAM WORDS ...

is that process: it runs the program, and before the given call of the function it says so and waits for an
answer, so that no fault comes too early or too late.
"""

import importlib
import os
import pty
import random
import resource
import runpy
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

_VARIABLE = "LLM_JAX_PLANTING"  # two descriptors: one to say that the phase is there, one to hear "go on"
_HANGS = 120  # seconds after which a command counts as one that hangs
_ROOM = 8 * 2**20  # bytes of address space beyond what is used when a limit is set
_CHANCE = random.Random(0)
# Gives up the capabilities by which root reads and writes anywhere (prctl), closes, and becomes the command.
_ENTER = """
import ctypes, os, sys
for capability in (1, 2):
    ctypes.CDLL(None).prctl(24, capability, 0, 0, 0)
for number in filter(None, sys.argv[1].split(",")):
    os.close(int(number))
os.execv(sys.executable, [sys.executable, *sys.argv[2:]])
"""


class Fault(NamedTuple):
    """What goes wrong: from the start on, or from a phase on until it is lifted."""

    plant: Callable[["Command"], None] = lambda _: None
    lift: Callable[["Command"], None] = lambda _: None
    is_signal: bool = False  # which comes while the phase is at work; all else is there when it begins
    own_disk: bool = False  # a small file system, with the folder in it
    terminal: bool = False  # for standard output and error
    variables: Mapping[str, str] = {}
    closed: Sequence[int] = ()  # descriptors that are closed when the process begins


class Command:
    """A command at work, as a fault sees it.

    Args:
        folder: its working directory.
        point: where the fault is planted, as in the usage above; None for one that holds from the start.
        words: the module, and its arguments.
        fault: what goes wrong.
        log: a file for what it writes to standard error, outside the folder.
    """

    def __init__(self, folder: Path, point: str | None, words: Sequence[str], fault: Fault, log: Path):
        self.folder, self._fault, self._log = folder, fault, log
        self._said, say = os.pipe()
        hear, self._answer = os.pipe()
        self._reading, output = pty.openpty() if fault.terminal else os.pipe()
        variables = {"PYTHONPATH": str(Path(__file__).parents[1]), _VARIABLE: f"{say} {hear}"}
        begin = [str(Path(__file__).resolve()), point] if point else ["-m"]
        closed = ",".join(map(str, fault.closed))
        with log.open("wb") as errors:
            self.process = subprocess.Popen(
                [sys.executable, "-c", _ENTER, closed, *begin, *words],
                cwd=folder,
                env=os.environ | variables | dict(fault.variables),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output if fault.terminal else errors,
                pass_fds=(say, hear),
            )
        for mine in (say, hear, output):
            os.close(mine)
        self.hung = self.reached = False

    def close_output(self) -> None:
        """The reader of its output, or its terminal, is gone."""
        os.close(self._reading)
        self._reading = -1

    def finish(self) -> str:
        """Waits for its end and plants the fault on the way; gives all that it wrote while somebody read."""
        shown, deadline = bytearray(), time.monotonic() + _HANGS
        while self._reading >= 0 or self.process.poll() is None:
            watched = [each for each in (self._reading, self._said) if each >= 0]
            for ready in select.select(watched, [], [], 0.05)[0]:
                if ready == self._said:
                    self._meet()
                elif content := _read(ready):
                    shown += content
                else:
                    self.close_output()
            if time.monotonic() > deadline:
                self.hung = True
                self.process.kill()
                break
        self.process.wait()
        for left in (self._reading, self._said, self._answer):
            if left >= 0:
                os.close(left)
        return (shown + self._log.read_bytes()).decode(errors="replace")

    def lift(self) -> None:
        """Ends the fault."""
        self._fault.lift(self)

    def _meet(self) -> None:
        """The phase is there, or the process ended without it."""
        if not os.read(self._said, 1):
            os.close(self._said)
            self._said = -1
            return
        self.reached = True
        if not self._fault.is_signal:
            self._fault.plant(self)
        os.write(self._answer, b".")
        if self._fault.is_signal:
            time.sleep(_CHANCE.random() / 10)
            self._fault.plant(self)


@contextmanager
def disk(folder: Path, own: bool) -> Iterator[Path]:
    """A folder, on a small file system of its own if so wanted."""
    folder.mkdir()
    if own:
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=32m", "tmpfs", str(folder)], check=True)
    try:
        yield folder
    finally:
        if own:
            subprocess.run(["umount", "--lazy", str(folder)], check=True)


def can_mount() -> bool:
    """Return whether such a small file system can be mounted here."""
    with tempfile.TemporaryDirectory() as name:
        try:
            with disk(Path(name) / "small", own=True):
                return True
        except (OSError, subprocess.CalledProcessError):
            return False


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 65536)
    except OSError:  # a terminal whose other side was closed
        return b""


def _send(number: int, command: Command) -> None:
    command.process.send_signal(number)


def _fill(command: Command) -> None:
    with (command.folder / "filler").open("wb", buffering=0) as file:
        for size in (2**16, 1):
            try:
                while file.write(bytes(size)):
                    pass
            except OSError:
                continue


def _set_mode(mode: int, command: Command) -> None:
    for folder in [command.folder, *(path for path in command.folder.rglob("*") if path.is_dir())]:
        folder.chmod(mode)


def _limit_memory(command: Command) -> None:
    pages = int(Path(f"/proc/{command.process.pid}/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + _ROOM
    resource.prlimit(command.process.pid, resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))


def _guard_inputs(mode: int, command: Command) -> None:
    """Sets who may read what the command reads: the newest step of the run, a model's weights."""
    steps = [path for path in command.folder.glob("run/checkpoints/*") if path.name.isdecimal()]
    newest = max(steps, key=lambda path: int(path.name), default=command.folder / "none")
    for path in [*newest.rglob("*"), *command.folder.glob("theirs/*.safetensors")]:
        if path.is_file():
            path.chmod(mode)


_SIGNALS = ("SIGKILL", "SIGTERM", "SIGINT", "SIGHUP", "SIGUSR1")
FAULTS = {
    **{name: Fault(partial(_send, getattr(signal, name)), is_signal=True) for name in _SIGNALS},
    "closed pipe": Fault(Command.close_output),
    "dead terminal": Fault(Command.close_output, terminal=True),
    "full disk": Fault(_fill, lambda command: (command.folder / "filler").unlink(), own_disk=True),
    "read-only folder": Fault(partial(_set_mode, 0o555), partial(_set_mode, 0o755)),
    "memory limit": Fault(_limit_memory),
    "unreadable input": Fault(partial(_guard_inputs, 0), partial(_guard_inputs, 0o644)),
}
FROM_THE_START = {
    "closed output": Fault(closed=(1,)),
    "closed output and error": Fault(closed=(1, 2)),
    "ASCII terminal": Fault(terminal=True, variables={"PYTHONIOENCODING": "ascii", "TERM": "dumb"}),
}


def _pausing(original: Callable[..., Any], call: int) -> Callable[..., Any]:
    """The function, but before the given call of it the fault is planted."""
    say, hear = map(int, os.environ.pop(_VARIABLE).split())
    calls = 0

    def function(*args: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == call:
            os.write(say, b".")
            os.read(hear, 1)
        return original(*args, **options)

    return function


def main() -> None:
    point, program, *words = sys.argv[1:]
    place, _, call = point.partition("#")
    module, _, names = place.partition(":")
    *owners, name = names.split(".")
    owner: Any = importlib.import_module(module)
    for each in owners:
        owner = getattr(owner, each)
    setattr(owner, name, _pausing(getattr(owner, name), int(call or 1)))
    sys.argv = [program, *words]
    runpy.run_module(program, run_name="__main__")


if __name__ == "__main__":
    main()
