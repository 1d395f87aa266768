"""How every door opens: words of the command line to a function, errors to one line and an exit status."""

import os
import sys
from collections.abc import Callable
from typing import Any

import cyclopts
from cyclopts import App
from rich.console import Console

from llm_jax.errors import UserError


def run(door: Callable[..., Any], words: list[str] | None = None, **app_options: Any) -> None:
    """Parses `words` (default: the process's own) into the arguments of `door`, runs it and exits.

    Exit status: 0, or the error's own (see `errors`), or 2 for usage, or 130 for Ctrl-C where nothing was to be saved.
    """
    name = f"python -m llm_jax.{door.__name__}"
    app = App(name=name, default_command=door, version_flags=[], result_action="return_value", **app_options)
    try:
        app(sys.argv[1:] if words is None else words, exit_on_error=False, print_error=False)
        sys.stdout.flush()
    except cyclopts.CycloptsError as error:
        _stop(" ".join(str(error).split()) + f" See: {name} --help", 2)
    except UserError as error:
        _stop(" ".join(str(error).split()), error.exit_status)
    except KeyboardInterrupt:
        _stop("interrupted", 130)
    except BrokenPipeError:  # The reader left, as `head` does: not our failure, and nobody to tell.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    sys.exit(0)


def _stop(message: str, status: int) -> None:
    Console(stderr=True, highlight=False, soft_wrap=True).print(
        f"error: {message}", style="bold red", markup=False
    )
    sys.exit(status)
