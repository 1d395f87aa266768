"""Completion in the shell: commands, options and their choices, after Tab."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from cyclopts import App, Parameter
from cyclopts.completion.detect import ShellDetectionError

from llm_jax.base.errors import UserError

SHELLS = ("bash", "zsh", "fish")


def completing_app(commands: Mapping[str, Callable[..., Any] | App]) -> App:
    """Return all commands as one program, which only completion needs."""
    app = App(name="llm-jax", version_flags=[], default_parameter=Parameter(name_transform=str))
    for name, command in commands.items():
        app.command(command, name=name)
    return app


def install(commands: Mapping[str, Callable[..., Any] | App], shell: str | None) -> Path:
    """Write the shell's script where it looks for it, and a line into its start file.

    Args:
        commands: by name.
        shell: one of SHELLS; the one that this process was started from without it.

    Raises:
        UserError: there is no completion for the shell, or nobody knows which it is.
    """
    if shell not in (None, *SHELLS):
        raise UserError(f"--install-completion must be one of {', '.join(SHELLS)}; got {shell}")
    try:
        return completing_app(commands).install_completion(shell=shell)  # pyright: ignore[reportArgumentType]
    except ShellDetectionError:
        raise UserError(
            f"which shell this is cannot be seen; name it: llm-jax --install-completion {SHELLS[0]}"
        ) from None
