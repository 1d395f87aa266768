"""Programs that are timed beside one another: each in a process of its own, one of them awake at a time.

A side is a script that calls `serve` with a function. Threads that wait actively, as is fastest for some
libraries, would take cores from whoever's turn it is: so a process that waits is stopped (SIGSTOP), and wakes
for its turn alone.
"""

import json
import os
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple


def environment_of(threads: int) -> dict[str, str]:
    """Variables for a side whose products have so many threads, which spin between two of them."""
    number = str(threads)
    waiting = {"OMP_WAIT_POLICY": "active"} if threads > 1 else {}
    return {"OMP_NUM_THREADS": number, "MKL_NUM_THREADS": number} | waiting


class Side(NamedTuple):
    """What is timed: a script's words, its environment, and what it is called in tables."""

    name: str
    words: Sequence[str]
    environment: Mapping[str, str]


def serve(step: Callable[[], int]) -> None:
    """In a side's process: does steps when asked to, and says how long one took.

    Args:
        step: does one or several, and gives how many; it is called once before the first turn, to warm up.
    """
    step()
    out = os.fdopen(os.dup(1), "w")
    print("ready", file=out, flush=True)
    for line in sys.stdin:
        least, began, done = float(line), time.perf_counter(), 0
        while done == 0 or time.perf_counter() - began < least:
            done += step()
        print(json.dumps((time.perf_counter() - began) / done), file=out, flush=True)


class _Process:
    """A side's process, asleep but for its turns."""

    def __init__(self, side: Side):
        self._process = subprocess.Popen(
            [sys.executable, *side.words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])} | dict(side.environment),
        )
        self._answer(side.name, "ready")
        self._process.send_signal(signal.SIGSTOP)
        self._name = side.name

    def turn(self, seconds: float) -> float:
        """Seconds a step takes, over at least so many seconds."""
        assert self._process.stdin
        self._process.send_signal(signal.SIGCONT)
        print(seconds, file=self._process.stdin, flush=True)
        taken = float(self._answer(self._name))
        self._process.send_signal(signal.SIGSTOP)
        return taken

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()

    def _answer(self, name: str, wanted: str | None = None) -> str:
        assert self._process.stdout
        for line in self._process.stdout:
            if wanted is None or line.strip() == wanted:
                return line
        raise SystemExit(f"{name}: its process ended with status {self._process.wait()}")


def take_turns(sides: Sequence[Side], rounds: int, seconds: float = 0.5) -> dict[str, float]:
    """Median seconds a step of each side, in rounds that give every side its turn."""
    processes: dict[str, _Process] = {}
    try:
        for side in sides:
            processes[side.name] = _Process(side)
        times: dict[str, list[float]] = {name: [] for name in processes}
        for number in range(rounds + 1):
            for name, process in processes.items():
                taken = process.turn(seconds)
                if number:  # the first round warms up
                    times[name].append(taken)
    finally:
        for process in processes.values():
            process.close()
    return {name: median(taken) for name, taken in times.items()}


def best_of(peers: Sequence[Side], rounds: int = 2, seconds: float = 0.5) -> dict[str, float]:
    """Median seconds a step of each peer, the fastest first. They run one after the other, as memory may not
    hold all of them.
    """
    found = {side.name: take_turns([side], rounds, seconds)[side.name] for side in peers}
    return dict(sorted(found.items(), key=lambda item: item[1]))


def table(rows: Mapping[str, float], ours: str, columns: Mapping[str, Callable[[float], str]]) -> str:
    """Lines with a side each: its columns, and how many times as long as ours it takes."""
    width = max(map(len, rows)) + 2
    lines = [f"{'':{width}}" + "".join(f"{name:>12}" for name in columns) + f"{'ours is':>10}"]
    for name, seconds in rows.items():
        cells = "".join(f"{show(seconds):>12}" for show in columns.values())
        lines.append(f"{name:{width}}{cells}{seconds / rows[ours]:9.2f}x")
    return "\n".join(lines)


def machine(**more: Any) -> dict[str, Any]:
    """What a file of figures says of the machine."""
    return {"processors": os.cpu_count(), "python": platform.python_version(), **more}
