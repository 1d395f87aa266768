"""How every door opens: words of the command line to a function, errors to one line and an exit status."""

import dataclasses
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
from rich.console import Console

from llm_jax.compilation import keep_compiled_programs
from llm_jax.effects import find_idle, values_of
from llm_jax.errors import UserError
from llm_jax.process import leave
from llm_jax.settings import file_layers, inherited_layer


def _inherited(init_from: str, run: Path) -> Mapping[str, Any]:
    from llm_jax.origin import inherited_settings  # JAX, which other configurations are read without

    return inherited_settings(init_from, run)


# A door's parameter for what its files and options give: names, each with the number of its layer.
Given = Annotated[Mapping[str, int], Parameter(parse=False)]
NOTHING_GIVEN: Mapping[str, int] = MappingProxyType({})
_LEAST_COLUMNS = 40  # In fewer, help texts wrap for minutes, or cannot be laid out.
INHERITED = inherited_layer(_inherited)


def run(door: Callable[..., Any] | App, words: list[str] | None = None, *, takes_files: bool = False) -> None:
    """Parses `words` (default: the process's own) into the arguments of `door`, runs it and exits.

    Exit status: 0, or the error's own (see `errors`), or 2 for usage, or 130 for Ctrl-C where nothing was to
    be saved.

    Args:
        door: a function with cyclopts parameters, whose docstring is the help text; or an App with a command
            for each function.
        words: the command line without the program's name.
        takes_files: whether words before the first option are TOML files whose values stand below the
            options. A door with a parameter `given: Given` gets there what files and options give, and sees
            to it that all has an effect, as `effects.settle` does; of any other door it is seen to here.
    """
    keep_compiled_programs()
    short_name = door.name[0] if isinstance(door, App) else door.__name__
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
            console=Console(width=max(Console().width, _LEAST_COLUMNS)),
            default_parameter=Parameter(name_transform=str),
        )
        if isinstance(door, App):
            app.help = door.help
            app.update(door)
            app.version_flags = []
        else:
            app.default(door)
        call, bound, unparsed = app.parse_args(words[len(files) :], exit_on_error=False, print_error=False)
        noted = {"given": given} if "given" in unparsed else {}
        if not noted:
            find_idle(_option_values(bound), given)
        call(*bound.args, **(bound.kwargs | noted))
        sys.stdout.flush()
    except cyclopts.CycloptsError as error:
        _stop(" ".join(str(error).split()) + f" See: {name} --help", 2)
    except UserError as error:
        _stop(" ".join(str(error).split()), error.exit_status)
    except KeyboardInterrupt:
        _stop("interrupted", 130)
    except BrokenPipeError:  # The reader left, as `head` does: not our failure, and nobody to tell.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        leave(0)
    leave(0)


def _option_values(bound: inspect.BoundArguments) -> dict[str, Any]:
    """The value of each option of a door, those left out included."""
    bound.apply_defaults()
    values: dict[str, Any] = {}
    for name, value in bound.arguments.items():
        values |= values_of(value) if dataclasses.is_dataclass(value) else {name: value}
    return values


def _stop(message: str, status: int) -> None:
    Console(stderr=True, highlight=False, soft_wrap=True).print(
        f"error: {message}", style="bold red", markup=False
    )
    leave(status)
