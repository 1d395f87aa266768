"""A compiled program that is not the one that was kept never reaches XLA, and is made anew."""

import os
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

from llm_jax.base.checked_programs import CheckedCache, sealed, unsealed
from tests.base.test_compilation import PROGRAM


class Kept(SimpleNamespace):
    """Entries as JAX keeps them: in files, of which the first stays."""

    def get(self, key: str) -> bytes | None:
        path = self._path / f"{key}-cache"
        return path.read_bytes() if path.exists() else None

    def put(self, key: str, value: bytes) -> None:
        path = self._path / f"{key}-cache"
        if not path.exists():
            path.write_bytes(value)


def cache(folder: Path) -> CheckedCache:
    return CheckedCache(Kept(_path=folder), folder)


def damaged(entry: bytes) -> list[bytes]:
    flipped = [entry[:at] + bytes([entry[at] ^ 1 << at % 8]) + entry[at + 1 :] for at in range(len(entry))]
    cut = [entry[:length] for length in range(len(entry))]
    return [*flipped, *cut, entry + b"\0", entry[1:], sealed("other", b"a program"), b"a program"]


def test_only_what_was_sealed_under_a_key_comes_out_and_is_made_anew_otherwise(tmp_path: Path) -> None:
    entry = sealed("key", b"a program")
    assert unsealed("key", entry) == b"a program"
    kept = cache(tmp_path)
    for wrong in damaged(entry):
        (tmp_path / "key-cache").write_bytes(wrong)
        assert kept.get("key") is None, wrong
        assert not list(tmp_path.iterdir())
    kept.put("key", b"a program")
    assert kept.get("key") == b"a program"
    kept.put("key", b"a better program")  # JAX found that it cannot use the other
    assert kept.get("key") == b"a better program"


def test_an_entry_at_which_a_process_ended_is_not_met_again(tmp_path: Path) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    for left in (
        f"{dead.pid} {socket.gethostname()}",
        f"{os.getpid()} elsewhere",
        "",
        "99999999999999999999 x",
    ):
        cache(tmp_path).put("key", b"a program")
        (tmp_path / "key-reading").write_text(left)
        assert cache(tmp_path).get("key") is None
        assert not list(tmp_path.iterdir())
    cache(tmp_path).put("key", b"a program")
    kept = cache(tmp_path)
    assert kept.get("key") == b"a program"
    assert (tmp_path / "key-reading").exists()
    assert cache(tmp_path).get("key") == b"a program"  # whose process lives
    kept.done()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["key-cache"]


def test_no_disk_ends_a_command(tmp_path: Path) -> None:
    def refused(*_: object) -> bytes:
        raise OSError(28, "No space left on device")

    kept = CheckedCache(SimpleNamespace(get=refused, put=refused, _path=tmp_path), tmp_path / "nowhere")
    kept.put("key", b"a program")
    assert kept.get("key") is None


def run(home: Path) -> tuple[list[str], str]:
    """What the program says, and standard error."""
    surroundings = {name: value for name, value in os.environ.items() if not name.startswith("JAX_")}
    surroundings |= {"XDG_CACHE_HOME": str(home), "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(
        [sys.executable, "-W", "always", "-c", PROGRAM],
        capture_output=True,
        text=True,
        env=surroundings,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split(), done.stderr


def test_every_damage_is_seen_before_xla_and_mended_once(tmp_path: Path) -> None:
    from jax._src import compilation_cache as jaxs  # which knows how it compresses

    (_, _, _, answer), before = run(tmp_path)
    entries = sorted(tmp_path.rglob("*-cache"))
    assert len(entries) >= 3
    assert not list(tmp_path.rglob("*-reading"))
    first, second, third, *_ = (entry.read_bytes() for entry in entries)
    entries[0].write_bytes(second)
    entries[1].write_bytes(first)
    inside = bytearray(jaxs.decompress_executable(third[:-32]))
    inside[len(inside) // 2] ^= 255  # which ended the process, or came out as another program
    entries[2].write_bytes(jaxs.compress_executable(bytes(inside)) + third[-32:])
    for entry in entries[3:]:
        entry.write_bytes(entry.read_bytes()[:-1])
    (hits, _, _, again), told = run(tmp_path)
    assert (hits, again, told) == ("0", answer, before)
    (hits, _, _, again), told = run(tmp_path)
    assert (int(hits), again, told) == (len(entries), answer, before)
