"""A help text in a terminal of any width, and a user who has neither a home nor a name."""

import os
import pwd
from typing import Any

import pytest

from llm_jax.base.compilation import keep_compiled_programs
from llm_jax.base.terminal import console
from llm_jax.train import train
from llm_jax.verify import verify
from tests.support.commands import run_command


@pytest.mark.parametrize("columns", ["0", "1", "-5", "x", "39"])
@pytest.mark.parametrize("function", [train, verify])
def test_help_is_shown_in_any_width(
    function: Any, columns: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    run_command(function, ["--help"])
    assert "Usage" in capsys.readouterr().out


def test_a_user_without_home_or_name_has_no_cache_and_works(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def unknown(uid: int) -> None:
        raise KeyError(f"getpwuid(): uid not found: {uid}")

    monkeypatch.setattr(pwd, "getpwuid", unknown)
    for name in ("HOME", "XDG_CACHE_HOME", "JAX_COMPILATION_CACHE_DIR"):
        monkeypatch.delenv(name, raising=False)
    keep_compiled_programs()
    assert "JAX_COMPILATION_CACHE_DIR" not in os.environ
    run_command(train, ["--help"], takes_files=True)
    assert "Usage" in capsys.readouterr().out


def test_a_table_is_as_wide_as_the_terminal_and_as_it_likes_where_there_is_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    assert console(width=150).width == 150
    monkeypatch.setenv("COLUMNS", "80")
    assert console(width=150).width == 80
