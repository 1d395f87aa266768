"""Compiled programs are found again by the next process, and only where nobody else can have put them."""

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from llm_jax.base.compilation import keep_compiled_programs, make_room

PROGRAM = """
from llm_jax.base.compilation import compile_time, keep_compiled_programs
keep_compiled_programs()
import jax, jax.numpy as jnp
hits = []
jax.monitoring.register_event_listener(lambda event, **_: hits.append(event.endswith("/cache_hits")))
with compile_time() as compiling:
    answer = jax.jit(lambda x: jnp.linalg.norm(jnp.tanh(x @ x.T) @ x))(jnp.arange(64.0).reshape(8, 8) / 64)
print(sum(hits), compiling.programs, compiling.seconds > 0, float(answer))
"""


def run_program(home: Path) -> list[str]:
    surroundings = {name: value for name, value in os.environ.items() if not name.startswith("JAX_")}
    surroundings |= {"XDG_CACHE_HOME": str(home), "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", PROGRAM], capture_output=True, text=True, env=surroundings
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_a_second_process_finds_the_program_and_a_damaged_one_is_made_anew(tmp_path: Path) -> None:
    hits, programs, counted, answer = run_program(tmp_path)
    assert (hits, counted) == ("0", "True")
    assert int(programs) > 0
    again = run_program(tmp_path)
    assert int(again[0]) > 0
    assert again[3] == answer
    for entry in tmp_path.rglob("*-cache"):
        entry.write_bytes(b"damaged")
    assert run_program(tmp_path)[::3] == ["0", answer]


def test_the_folder_is_private_and_another_choice_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "elsewhere")
    keep_compiled_programs()
    assert os.environ["JAX_COMPILATION_CACHE_DIR"] == "elsewhere"
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR")
    keep_compiled_programs()
    folder = Path(os.environ["JAX_COMPILATION_CACHE_DIR"])
    assert folder.is_relative_to(tmp_path)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700

    folder.chmod(0o777)
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR")
    keep_compiled_programs()
    assert "JAX_COMPILATION_CACHE_DIR" not in os.environ


def test_programs_that_were_not_read_for_longest_make_room_for_others(tmp_path: Path) -> None:
    for number, size in enumerate((70, 20, 30, 40)):
        (tmp_path / f"{number}-cache").write_bytes(bytes(size))
        os.utime(tmp_path / f"{number}-cache", (1000 - 10 * number, 5))
    make_room(tmp_path, 160)
    assert len(list(tmp_path.iterdir())) == 4
    make_room(tmp_path, 95)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0-cache", "1-cache"]


def test_a_program_is_kept_without_a_look_at_the_others(tmp_path: Path) -> None:
    run_program(tmp_path)
    folder = next((tmp_path / "llm_jax").iterdir())
    for file in folder.iterdir():
        file.unlink()
    (folder / "other-cache").write_bytes(b"without the note of its last use that JAX's own limit asks for")
    run_program(tmp_path)
    assert int(run_program(tmp_path)[0]) > 0


def test_a_home_that_cannot_be_written_to_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    keep_compiled_programs()
    assert "JAX_COMPILATION_CACHE_DIR" not in os.environ


def test_what_is_below_a_folder_counts_and_what_cannot_be_removed_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    below = tmp_path / "xla_gpu_per_fusion_autotune_cache_dir"
    below.mkdir()
    (below / "old").write_bytes(bytes(100))
    os.utime(below / "old", (1, 1))
    (tmp_path / "new-cache").write_bytes(bytes(100))
    (tmp_path / "link").symlink_to("nowhere")
    make_room(tmp_path, 150)
    assert (below.is_dir(), (below / "old").exists(), (tmp_path / "new-cache").exists()) == (
        True,
        False,
        True,
    )

    def refused(path: str) -> None:
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(os, "unlink", refused)
    make_room(tmp_path, 0)
    make_room(tmp_path / "nowhere", 0)
    assert (tmp_path / "new-cache").exists()


def test_a_user_without_a_home_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody(self: Path) -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "expanduser", nobody)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    keep_compiled_programs()
    assert "JAX_COMPILATION_CACHE_DIR" not in os.environ
