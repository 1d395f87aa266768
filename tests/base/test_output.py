"""An output that is closed, full, or cannot spell a character ends no work."""

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from llm_jax.base.strict_json import dumps
from llm_jax.base.terminal import console, visible

STEERING = "\x1b[2J\x9b1m\x07\x08\r\u202eevil\u2066"

# A command of ours, without the seconds that a model takes: it says, shows, and leaves a file.
PROGRAM = """
import sys
from pathlib import Path
from llm_jax.cli import command
from llm_jax.base.terminal import console, remark, say, say_json, write
def working(out: Path, /, *, text: str = "plain", streamed: int = 0) -> None:
    "A command."
    for line in range(3000):
        say(f"{line} {text}")
    print("a library's own word", flush=True)
    console().rule(text)
    remark(text)
    for _ in range(streamed):
        write(text)
    out.write_text("work")
    say_json({"done": float("nan"), "text": text})
command.run(working)
"""


def start(out: Path, *words: str, how: str = "", **surroundings: str) -> subprocess.CompletedProcess[bytes]:
    """The command in a shell, with `how` behind it."""
    command = [sys.executable, "-c", PROGRAM, str(out), *words]
    line = f'"$@" {how}'
    return subprocess.run(
        ["bash", "-o", "pipefail", "-c", line, "-", *command],
        capture_output=True,
        timeout=60,
        env=os.environ | surroundings,
    )


@pytest.mark.parametrize(
    ("how", "status", "told"),
    [
        (">&-", 0, ""),
        ("2>&-", 0, ""),
        (">&- 2>&- <&-", 0, ""),
        ("| head -n 1", 0, ""),
        ("| true", 0, ""),
        ("2>&1 | head -c 1", 0, ""),
        ("1</dev/null", 0, ""),
        ("> /dev/full", 74, "error: standard output could not be written: No space left on device"),
        ("> /dev/full 2>&1", 74, ""),
        ("2> /dev/full", 0, ""),
    ],
)
def test_work_is_done_whatever_becomes_of_its_output(
    tmp_path: Path, how: str, status: int, told: str
) -> None:
    done = start(tmp_path / "out", how=how)
    assert done.returncode == status
    assert (tmp_path / "out").read_text() == "work"
    words = done.stderr.decode().replace("plain\n", "").strip()
    assert words == told


@pytest.mark.parametrize(("how", "status"), [("| head -n 1", 0), ("> /dev/full", 74), (">&-", 0)])
def test_what_is_made_for_the_output_alone_ends_with_it(tmp_path: Path, how: str, status: int) -> None:
    done = start(tmp_path / "out", "--streamed", "1000000000", how=how)
    assert done.returncode == status
    assert b"Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("encoding", ["ascii", "ascii:strict", "cp1252", "latin-1", "utf-8"])
def test_no_encoding_ends_work(tmp_path: Path, encoding: str) -> None:
    done = start(tmp_path / "out", "--text", "é → 漢 😀 \udcff", PYTHONIOENCODING=encoding)
    assert (done.returncode, b"Traceback" in done.stderr) == (0, False)
    assert json.loads(done.stdout.splitlines()[-1]) == {"done": None, "text": "é → 漢 😀 \udcff"}
    spelt = {"ascii": rb"0 \xe9 \u2192 \u6f22 \U0001f600 \udcff", "cp1252": rb"\u2192"}
    assert spelt.get(encoding, b"\\udcff") in done.stdout


def test_a_full_pipe_that_does_not_wait_is_waited_for(tmp_path: Path) -> None:
    unhurried = "import os, sys, time; time.sleep(0.5); sys.stdout.write(str(len(sys.stdin.read())))"
    prelude = "import os; os.set_blocking(1, False)\n"
    with subprocess.Popen(
        [sys.executable, "-c", prelude + PROGRAM, str(tmp_path / "out"), "--text", "x" * 100],
        stdout=subprocess.PIPE,
    ) as made:
        read = subprocess.run([sys.executable, "-c", unhurried], stdin=made.stdout, capture_output=True)
    assert made.returncode == 0
    assert int(read.stdout) > 3000 * 100


def in_terminal(*words: str, **surroundings: str) -> tuple[int, bytes]:
    """Exit status of a command, and what the terminal that it had for its output got."""
    main, other = pty.openpty()
    with subprocess.Popen(words, stdout=other, stderr=other, env=os.environ | surroundings) as process:
        os.close(other)
        got = b""
        while True:
            try:
                piece = os.read(main, 1 << 16)
            except OSError:  # what Linux says at a terminal's end
                break
            got += piece
            if not piece:
                break
    os.close(main)
    return process.returncode, got


def test_a_text_cannot_steer_a_terminal_and_is_exact_in_a_pipe(tmp_path: Path) -> None:
    words = (str(tmp_path / "out"), "--text", STEERING, "--streamed", "2")
    piped = start(tmp_path / "out", *words[1:]).stdout.decode()
    assert STEERING * 2 in piped  # what `write` wrote
    said, shown = piped.split(STEERING * 2)
    assert visible(STEERING) in said
    assert json.loads(shown)["text"] == STEERING
    assert not set(STEERING) & set("\x1b\x9b\x07\x08\r\u202e\u2066") & set(said + shown)

    status, got = in_terminal(sys.executable, "-c", PROGRAM, *words, NO_COLOR="1")
    assert status == 0
    for control in ("\x1b[2J", "\x9b", "\x07", "\x08", "\u202e", "\u2066"):
        assert control.encode() not in got


def test_a_terminal_that_is_gone_ends_no_work(tmp_path: Path) -> None:
    main, other = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-c", "input()\n" + PROGRAM, str(tmp_path / "out")],
        stdin=subprocess.PIPE,
        stdout=other,
        stderr=other,
    ) as process:
        os.close(other)
        os.close(main)
        process.communicate(b"\n")
    assert process.returncode == 0
    assert (tmp_path / "out").read_text() == "work"


def test_users_texts_are_no_markup(capsys: pytest.CaptureFixture[str]) -> None:
    for text in ("a[1:x:2]", "[/b]x", "[bold]b[/bold]", ":smile:", "[link=http://x]y", "\\[x"):
        console().print(text)
        assert capsys.readouterr().out == text + "\n"


@pytest.mark.parametrize("columns", ["0", "1", "5"])
def test_a_terminal_without_columns_is_written_to(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], columns: str
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    console().print("a word and another")
    assert capsys.readouterr().out == "a word and another\n"


def test_json_has_null_for_what_is_no_number() -> None:
    value = {"a": [float("nan"), (float("inf"), 1.5)], "b": {"c": -float("inf")}}
    assert json.loads(dumps(value)) == {"a": [None, [None, 1.5]], "b": {"c": None}}
