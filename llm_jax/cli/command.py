"""How every command begins: words of the command line to a function, errors to one line and a status."""

import dataclasses
import errno
import inspect
import os
import sys
from collections.abc import Callable, Mapping
from itertools import takewhile
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any

import cyclopts
from cyclopts import App, Parameter

from llm_jax.base import terminal
from llm_jax.base.compilation import keep_compiled_programs
from llm_jax.base.errors import (
    INPUT_OUTPUT,
    NO_MEMORY,
    InterruptedAndSaved,
    UserError,
    is_out_of_memory,
    reason,
)
from llm_jax.base.process import leave
from llm_jax.config.effects import find_idle, values_of
from llm_jax.config.load import file_layers
from llm_jax.runs.inherited import INHERITED
from llm_jax.training.interrupt import Stopped, ended_by_signals

# A command's parameter for what its files and options give: names, each with the number of its layer.
Given = Annotated[Mapping[str, int], Parameter(parse=False)]
# A command's parameter for showing the page that it makes.
Open = Annotated[bool, Parameter(name="--open", negative="")]
NOTHING_GIVEN: Mapping[str, int] = MappingProxyType({})


def run(
    command: Callable[..., Any] | App, words: list[str] | None = None, *, takes_files: bool = False
) -> None:
    """Parses `words` (default: the process's own) into the arguments of `command`, runs it and exits.

    Exit status: 0, or the error's own (see `errors`), or 2 for usage, or 74 where the system did not let a
    file or standard output be read or written; where nothing was to be saved 130 for Ctrl-C, and 128 and the
    signal's number for others that ask a process to end. A reader of standard output that leaves, as `head`
    does, is no error.

    Args:
        command: a function with cyclopts parameters, whose docstring is the help text; or an App of several.
        words: the command line without the program's name.
        takes_files: whether words before the first option are TOML files whose values stand below the
            options. One with a parameter `given: Given` gets there what files and options give, and sees to
            it that all has an effect, as `effects.settle` does; of any other it is seen to here.
    """
    terminal.open_output()
    keep_compiled_programs()
    short_name = command.name[0] if isinstance(command, App) else command.__name__
    name = f"python -m llm_jax.{short_name}"
    words = sys.argv[1:] if words is None else words
    files = list(takewhile(lambda word: not word.startswith("-"), words)) if takes_files else []
    given: dict[str, int] = {}
    try:
        app = App(
            name=name,
            usage=f"Usage: {name} [CONFIG.toml ...] [OPTIONS]\n" if takes_files else None,
            config=[*file_layers([Path(file) for file in files], given), INHERITED],
            version_flags=[],
            default_parameter=Parameter(name_transform=str),
            console=terminal.console(),
        )
        if isinstance(command, App):
            app.help = command.help
            app.update(command)
            app.version_flags = []
        else:
            app.default(command)
        call, bound, unparsed = app.parse_args(words[len(files) :], exit_on_error=False, print_error=False)
        noted = {"given": given} if "given" in unparsed else {}
        if not noted:
            find_idle(_option_values(bound), given)
        with ended_by_signals():
            call(*bound.args, **(bound.kwargs | noted))
    except cyclopts.CycloptsError as error:
        _stop(" ".join(str(error).split()) + f" See: {name} --help", 2)
    except InterruptedAndSaved as stopped:  # no error: all went as it was asked for
        terminal.remark(" ".join(str(stopped).split()))
        leave(terminal.close_output(stopped.exit_status))
    except UserError as error:
        _stop(" ".join(str(error).split()), error.exit_status)
    except Stopped as stopped:
        _stop(f"stopped by {stopped.name}", stopped.exit_status)
    except KeyboardInterrupt:
        _stop("interrupted", 130)
    except terminal.OutputGone:
        leave(terminal.close_output(0))
    except OSError as error:
        _stop(_told(error), INPUT_OUTPUT)
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        _stop(f"not enough memory ({' '.join(str(error).split()):.200}); what is saved stays", NO_MEMORY)
    leave(terminal.close_output(0))


def _option_values(bound: inspect.BoundArguments) -> dict[str, Any]:
    """The value of each option of a command, those left out included."""
    bound.apply_defaults()
    values: dict[str, Any] = {}
    for name, value in bound.arguments.items():
        values |= values_of(value) if dataclasses.is_dataclass(value) else {name: value}
    return values


def _stop(message: str, status: int) -> None:
    terminal.remark(f"error: {message}", style="bold red")
    leave(terminal.close_output(status))


def _told(error: OSError) -> str:
    """What the system did not let be done, with the file where it says which."""
    names = " -> ".join(
        os.fsdecode(name) for name in (error.filename, error.filename2) if isinstance(name, str | bytes)
    )
    full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    advice = "; make room, and give the same command again" if full else ""
    return f"{names or 'a file'} cannot be read or written: {reason(error)}{advice}"
