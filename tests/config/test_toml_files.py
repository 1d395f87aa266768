"""TOML files as editors save them, and numbers beyond any machine: read, or refused in a line."""

from pathlib import Path

import pytest

from llm_jax.base.errors import UserError
from llm_jax.config import load
from llm_jax.config.run import Config

GOOD = "[model]\nd_model = 64\n"
# Content -> what the line must say.
BAD_FILES: dict[str, tuple[bytes, str]] = {
    "utf-16": (GOOD.encode("utf-16"), "must be UTF-8, got UTF-16"),
    "utf-16 without its mark": (GOOD.encode("utf-16-le"), "must be UTF-8, got UTF-16"),
    "digits": (b"[model]\nd_model = " + b"9" * 6000, "cannot be read"),
    "hexadecimal": (b"[model]\nd_model = 0x" + b"f" * 6000, "model.d_model in"),
    "nested": (b"[model.rotary]\ntheta = 0x" + b"f" * 6000, "model.rotary.theta in"),
    "too large": (b"[train]\nsteps = 3_000_000_000", "must be below 2**31"),
    "brackets": (b"x = " + b"[" * 50_000, "too many brackets"),
    "zero byte": (b'[data]\ncorpus = "a\\u0000"', "must not have a zero byte"),
    "zero byte in the run's name": (b'[train]\nrun = "a\\u0000"', "must not have a zero byte"),
    "zero byte in the origin's": (b'[train]\ninit_from = "a\\u0000"', "must not have a zero byte"),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_a_bad_file_is_refused_by_name(name: str, tmp_path: Path) -> None:
    content, said = BAD_FILES[name]
    (tmp_path / "x.toml").write_bytes(content)
    with pytest.raises(UserError) as refusal:
        load.read_config([tmp_path / "x.toml"])
    assert said in str(refusal.value)


def test_a_byte_order_mark_is_read(tmp_path: Path) -> None:
    (tmp_path / "x.toml").write_bytes(b"\xef\xbb\xbf" + GOOD.encode())
    assert load.read_config([tmp_path / "x.toml"]) == Config()


@pytest.mark.parametrize("option", ["model.d_model", "train.steps", "train.seed", "data.compact_min_count"])
@pytest.mark.parametrize("value", ["9" * 30, "-" + "9" * 30, "1" * 5000])
def test_a_number_beyond_any_machine_is_refused(option: str, value: str) -> None:
    with pytest.raises(UserError, match=r"must be below 2\*\*"):
        load.read_config([], [f"--{option}={value}"])
