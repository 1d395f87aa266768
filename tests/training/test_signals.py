"""Signals that ask a process to end: each is heard at once, and what is in hand is finished first."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from llm_jax.training import interrupt

ASKING = ["SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1"]
# A long step is one call of C that lets other threads run, as a compilation is; it takes minutes.
HELD = """
import sys
from llm_jax.training.interrupt import stop_requests
with stop_requests() as requested:
    print("ready", flush=True)
    {step}
    while not requested():
        pass
    print("stopped by", requested(), flush=True)
"""
RAISED = """
import os
from llm_jax.cli import command
def waiting() -> None:
    '''Waits.'''
    try:
        os.write(1, b"ready\\n")  # a line that is cut off by an exception may be said twice
        {step}
        while True:
            pass
    finally:
        print("tidied up", flush=True)
command.run(waiting, [])
"""
# The signal comes while an object goes.
FINALIZER = """
        class Slow:
            def __del__(self):
                import time
                until = time.monotonic() + 1
                while time.monotonic() < until:
                    pass
        Slow()
        import time
        time.sleep(1)
        raise SystemExit(7)
"""
DEAF = "import hashlib; hashlib.pbkdf2_hmac('sha256', b'', b'', 10**9)"


def started(program: str, ignored: str = "") -> subprocess.Popen[str]:
    """A process that runs this program and is ready."""
    # What a shell in the background or `nohup` ignores, its children ignore.
    begin = f"trap '' {ignored.removeprefix('SIG')}; " if ignored else ""
    process = subprocess.Popen(
        ["sh", "-c", f'{begin}exec "$@"', "sh", sys.executable, "-c", program],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"JAX_COMPILATION_CACHE_DIR": "none"},
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


@pytest.mark.parametrize("name", ASKING)
def test_a_signal_is_a_question_to_what_holds_it(name: str) -> None:
    process = started(HELD.format(step=""))
    process.send_signal(getattr(signal, name))
    out, errors = process.communicate(timeout=30)
    assert (out, process.returncode) == (f"stopped by {name}\n", 0)
    again = " again" if name == "SIGINT" else ""
    heard = "Ctrl-C" if name == "SIGINT" else name
    assert errors == f"{heard} heard; stopping after the step in hand; Ctrl-C{again}: at once\n"


@pytest.mark.parametrize("program", [HELD, RAISED])
def test_ctrl_c_is_heard_where_python_is_deaf_and_a_second_one_ends_at_once(program: str) -> None:
    process = started(program.format(step=DEAF))
    time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    assert process.stderr is not None
    assert process.stderr.readline().startswith("Ctrl-C heard; stopping after")
    process.send_signal(signal.SIGINT)
    out, errors = process.communicate(timeout=10)
    assert (out, errors, process.returncode) == ("", "", 130)


@pytest.mark.parametrize("name", ASKING)
def test_a_command_that_has_nothing_to_save_tidies_up_and_says_a_line(name: str) -> None:
    process = started(RAISED.format(step=""))
    process.send_signal(getattr(signal, name))
    out, errors = process.communicate(timeout=30)
    said = "Stopped." if name == "SIGINT" else f"Stopped by {name}."
    assert (out, errors) == ("tidied up\n", f"{said}\n")
    assert process.returncode == (130 if name == "SIGINT" else 128 + getattr(signal, name))


@pytest.mark.parametrize("name", ASKING)
def test_a_signal_in_a_finalizer_which_lets_nothing_through_ends_the_command_all_the_same(name: str) -> None:
    process = started(RAISED.format(step=FINALIZER))
    process.send_signal(getattr(signal, name))
    out, errors = process.communicate(timeout=30)
    said = "Stopped." if name == "SIGINT" else f"Stopped by {name}."
    assert (out, errors) == ("tidied up\n", f"{said}\n")


def test_nohup_is_respected_and_a_job_in_the_background_still_hears_ctrl_c() -> None:
    process = started(HELD.format(step=""), ignored="SIGHUP")
    process.send_signal(signal.SIGHUP)
    time.sleep(0.2)
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    assert process.communicate(timeout=30)[0] == "stopped by SIGTERM\n"
    process = started(HELD.format(step=""), ignored="SIGINT")
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=30)[0] == "stopped by SIGINT\n"


def test_two_hang_ups_are_one(tmp_path: Path) -> None:
    """A terminal that is closed sends one, and its shell another."""
    process = started(HELD.format(step="import time; time.sleep(1)"))
    for _ in range(2):
        process.send_signal(signal.SIGHUP)
    assert process.communicate(timeout=30)[0] == "stopped by SIGHUP\n"
    assert process.returncode == 0


def test_handlers_come_back() -> None:
    from llm_jax.training.interrupt import ended_by_signals, stop_requests

    before = {name: signal.getsignal(getattr(signal, name)) for name in ASKING}
    with ended_by_signals(), stop_requests() as requested:
        signal.raise_signal(signal.SIGUSR1)
        deadline = time.monotonic() + 10
        while not requested() and time.monotonic() < deadline:
            time.sleep(0.01)
        assert requested() == "SIGUSR1"
    assert {name: signal.getsignal(getattr(signal, name)) for name in ASKING} == before


def test_a_second_ctrl_c_leaves_a_process_that_is_somebody_elses() -> None:
    with interrupt.stop_requests(ends_process=False) as asked:
        signal.raise_signal(signal.SIGINT)
        while not asked():
            time.sleep(0.01)
        assert asked() == "SIGINT"
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
