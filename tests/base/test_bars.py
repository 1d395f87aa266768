"""What moves on a terminal: one thing at a time, no nan, and JSON where somebody asked."""

import math
import os
import pty
import subprocess
import sys

from llm_jax.base.bars import alone, tracked
from llm_jax.runs.progress import _figures

# A command that ends in JSON after a live line whose first figures are not known, and a bar inside a bar.
PROGRAM = """
import time
from llm_jax.base.bars import shown, tracked
from llm_jax.base.terminal import say, say_result
from llm_jax.cli import command
from llm_jax.runs.progress import LiveLine
from llm_jax.training.observers import Guard
def working() -> None:
    "A command."
    sizes = {"tokens_per_step": 1, "flops_per_token": 1, "peak_flops": 1e9}
    live = LiveLine(steps=4, start=0, guard=Guard(print), **sizes)
    time.sleep(0.4)
    for step in range(1, 5):
        live.reach(step, 2.5)
        for _ in tracked(range(3), "INNER"):
            time.sleep(0.1)
    live.close()
    with shown("OUTER"):
        say("said beside a bar")
        for _ in tracked(range(3), "INNER"):
            time.sleep(0.2)
    say_result({"done": 1})
command.run(working)
"""


def on_a_terminal(*words: str) -> str:
    """What the program writes to a terminal of 80 columns."""
    ours, its = pty.openpty()
    done = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *words],
        stdin=its,
        stdout=its,
        stderr=its,
        env=os.environ | {"COLUMNS": "80", "TERM": "xterm"},
    )
    os.close(its)
    parts = []
    try:
        while part := os.read(ours, 4096):
            parts.append(part)
    except OSError:  # the end, on Linux
        pass
    os.close(ours)
    assert done.wait(30) == 0
    return b"".join(parts).decode()


def test_a_live_line_shows_no_nan_and_is_alone_and_json_is_shown_when_asked_for() -> None:
    plain, asked = on_a_terminal(), on_a_terminal("--json")
    assert "nan" not in plain
    assert "compiling" in plain
    assert "loss 2.500" in plain
    assert "tokens/s" in plain
    assert "OUTER" in plain
    assert "INNER" not in plain
    assert '{"done": 1}' not in plain
    assert '{"done": 1}' in asked


def test_into_a_pipe_goes_json_and_nothing_that_moves() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ('said beside a bar\n{"done": 1}\n', "")


def test_what_is_said_beside_a_bar_stays_in_its_pipe() -> None:
    ours, its = pty.openpty()
    done = subprocess.run([sys.executable, "-c", PROGRAM], stdout=subprocess.PIPE, stderr=its, text=True)
    os.close(its)
    os.close(ours)
    assert done.stdout == 'said beside a bar\n{"done": 1}\n'


def test_what_is_no_number_is_left_out() -> None:
    assert _figures(1.5, math.nan, math.nan) == "loss 1.500"
    assert _figures(math.nan, 1234.0, 0.5) == "1,234 tokens/s  MFU 50.0%"


def test_one_figure_moves_at_a_time_and_the_next_may_when_it_is_done() -> None:
    with alone() as first, alone() as second:
        assert (first, second) == (True, False)
    with alone() as third:
        assert third
    items = tracked(iter("ab"), "letters", 2)
    assert next(items) == "a"
    items.close()
    with alone() as after:
        assert after
