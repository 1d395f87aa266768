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
from typing import Annotated, Any, NoReturn

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
from llm_jax.cli.help import ALIASES, HELP, HELP_ALL, Formatter, closing
from llm_jax.config.effects import find_idle, values_of
from llm_jax.config.load import Layer, file_layers
from llm_jax.runs.inherited import INHERITED
from llm_jax.training.interrupt import Stopped, ended_by_signals

# A command's parameter for what its files and options give: names, each with the number of its layer.
Given = Annotated[Mapping[str, int], Parameter(parse=False)]
# A command's parameter for showing the page that it makes.
Open = Annotated[bool, Parameter(name="--open", negative="")]
NOTHING_GIVEN: Mapping[str, int] = MappingProxyType({})


def run(
    command: Callable[..., Any] | App,
    words: list[str] | None = None,
    *,
    takes_files: bool = False,
    without_files: Layer | None = None,
) -> None:
    """Parse `words` (default: the process's own) into the arguments of `command`, runs it and exits.

    Every command has `--help`, `--help-all`, `--version` and `--json`; of an option given twice the last
    value counts. Exit status: 0, or the error's own (see `errors`), or 2 for usage, or 74 where the system
    did not let a file or standard output be read or written; where nothing was to be saved 130 for Ctrl-C,
    and 128 and the signal's number for others that ask a process to end. A reader of standard output that
    leaves, as `head` does, is no error.

    Args:
        command: a function with cyclopts parameters, whose docstring is the help text; or an App of several.
        words: the command line without the program's name.
        takes_files: whether words before the first option are TOML files whose values stand below the
            options. One with a parameter `given: Given` gets there what files and options give, and sees to
            it that all has an effect, as `effects.settle` does; of any other it is seen to here.
        without_files: a layer below all others where no file is named.
    """
    words = _with_input_sign(sys.argv[1:] if words is None else words)
    terminal.open_output(json="--json" in words)
    if "--version" in words:
        say_version()
    asked, everything = HELP.intersection(words), HELP_ALL in words
    words = [word for word in words if word not in {"--json", *HELP}]
    if not asked:
        keep_compiled_programs()
    files = list(takewhile(lambda word: not word.startswith("-"), words)) if takes_files else []
    options, given = words[len(files) :], {}
    below = [without_files] if without_files and not files else []
    name = f"llm-jax {command.name[0] if isinstance(command, App) else command.__name__}"
    try:
        app = _app(name, command, takes_files, everything)
        if asked:  # without reading the other words, which takes as long as all the rest
            app.help_print(options)
            leave(terminal.close_output(0))
        app.config = (*file_layers([Path(file) for file in files], given), INHERITED, *below)
        spelt_out = _spelt_out(options, command)
        call, bound, unparsed = app.parse_args(spelt_out, exit_on_error=False, print_error=False)
        noted = {"given": given} if "given" in unparsed else {}
        if not noted:
            find_idle(_option_values(bound), given)
        with ended_by_signals():
            call(*bound.args, **(bound.kwargs | noted))
    except cyclopts.CycloptsError as error:
        _stop(f"{_reworded(error, options)} See: {name} --help", 2)
    except InterruptedAndSaved as stopped:  # no error: all went as it was asked for
        terminal.remark(" ".join(str(stopped).split()))
        leave(terminal.close_output(stopped.exit_status))
    except UserError as error:
        _stop(" ".join(str(error).split()), error.exit_status)
    except Stopped as stopped:
        terminal.remark(f"Stopped by {stopped.name}.")
        leave(terminal.close_output(stopped.exit_status))
    except KeyboardInterrupt:  # no error, either: whoever pressed Ctrl-C knows why
        terminal.remark("Stopped.")
        leave(terminal.close_output(130))
    except terminal.OutputGone:
        leave(terminal.close_output(0))
    except OSError as error:
        _stop(_told(error), INPUT_OUTPUT)
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        _stop(f"not enough memory ({' '.join(str(error).split()):.200}); what is saved stays", NO_MEMORY)
    leave(terminal.close_output(0))


def say_version() -> NoReturn:
    """Print the version, and exit."""
    from importlib.metadata import version

    terminal.say(f"llm-jax {version('llm-jax')}")
    leave(terminal.close_output(0))


def _app(name: str, command: Callable[..., Any] | App, takes_files: bool, everything: bool) -> App:
    """The command with the help and the conventions that all have."""
    app = App(
        name=name,
        usage=f"Usage: {name} [CONFIG ...] [OPTIONS]\n" if takes_files else None,
        version_flags=[],
        help_flags=[],
        help_format="plaintext",
        help_formatter=Formatter(everything, ALIASES if _takes_settings(command) else {}),
        help_epilogue=closing(_takes_settings(command) and not everything),
        default_parameter=Parameter(name_transform=str, allow_repeating=True, negative_iterable=""),
        console=terminal.console(),
    )
    if isinstance(command, App):
        app.help = command.help
        app.update(command)
    else:
        app.default(command)
    return app


def _takes_settings(command: Callable[..., Any] | App) -> bool:
    """Whether the options of a command are those of a whole configuration, which have short names."""
    return not isinstance(command, App) and "config" in inspect.signature(command).parameters


def _spelt_out(options: list[str], command: Callable[..., Any] | App) -> list[str]:
    """Options with the full names of settings that were given by a short one."""
    if isinstance(command, App) or not _takes_settings(command):
        return options
    own = inspect.signature(command).parameters
    short = {name: setting for name, setting in ALIASES.items() if name.removeprefix("--") not in own}

    def spelt(word: str) -> str:
        name, equals, value = word.partition("=")
        return f"{short.get(name, name)}{equals}{value}"

    return [spelt(word) for word in options]


def _reworded(error: cyclopts.CycloptsError, options: list[str]) -> str:
    """What is wrong with a command line, as one line."""
    if not isinstance(error, cyclopts.UnusedCliTokensError) or not error.unused_tokens or error.app is None:
        return " ".join(str(error).split())
    first = error.unused_tokens[0]
    before = options[options.index(first) - 1] if first in options[1:] else ""
    for argument in error.app.assemble_argument_collection():
        if before in argument.names:
            off = [name for name in argument.negatives if before not in argument.negatives]
            return f"{before} takes no value" + (f"; use {off[0]} to switch it off." if off else ".")
    return f"Unexpected word: {first}."


def _with_input_sign(words: list[str]) -> list[str]:
    """The words with a lone "-", which cyclopts takes for an option, as the value that it is: joined to the
    option before it, or as the path of standard input.
    """
    found: list[str] = []
    for word in words:
        if word == "-" and found and found[-1].startswith("--") and "=" not in found[-1]:
            found[-1] += "=-"
        else:
            found.append("/dev/stdin" if word == "-" else word)
    return found


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
