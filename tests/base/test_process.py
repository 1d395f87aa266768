"""The end of a process does not wait for what a failed save has left waiting."""

import signal
import subprocess
import sys

# A thread as orbax has them, which nothing wakes; what was written before must come out all the same.
PROGRAM = """
import sys, threading
from llm_jax.base.process import leave

class Waiting(threading.Thread):
    pass

Waiting.__module__ = sys.argv[1]
Waiting(target=threading.Event().wait, daemon=sys.argv[1] != "orbax.somewhere").start()
print("written")
leave(4)
"""


def test_a_process_ends_in_spite_of_a_save_that_waits() -> None:
    for module in ("orbax.somewhere", "elsewhere"):
        words = [sys.executable, "-c", PROGRAM, module]
        done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
        assert (done.returncode, done.stdout) == (4, "written\n")


LATE = """
import atexit, os, signal
from llm_jax.base.process import leave

atexit.register(os.kill, os.getpid(), signal.SIGINT)
leave(0)
"""


def test_ctrl_c_while_the_interpreter_goes_says_nothing() -> None:
    done = subprocess.run([sys.executable, "-c", LATE], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (-signal.SIGINT, "")
