"""Settings from where they are written: TOML layers, dotted options, the JSON of runs and checkpoints.

This is the only reader. What is wrong is said in one line with the file, the key and what must hold. Which
settings were given, and where, is noted on the way, since a given one must have an effect (`effects`).
"""

import codecs
import dataclasses
import difflib
import tomllib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import cyclopts
from cyclopts import App, ArgumentCollection, Parameter
from cyclopts.config import Dict

from llm_jax.base.errors import UserError
from llm_jax.base.terminal import say
from llm_jax.base.tree import flatten
from llm_jax.config.effects import settle
from llm_jax.config.run import Config

_SAYS_WHICH_TEXT = tuple(
    f"data.{name}" for name in ("corpus", "errors", "format", "text_column", "text_limit_mb", "downloads")
)
Layer = Callable[[App, tuple[str, ...], ArgumentCollection], None]
_SECTIONS = tuple(f"[{name}]" for name in Config.__dataclass_fields__)


def to_dict(config: Any) -> dict[str, Any]:
    """Return a section or the whole as nested plain values, ready for JSON and for `config_from_dict`."""

    def plain(items: Sequence[tuple[str, Any]]) -> dict[str, Any]:
        return {name: str(value) if isinstance(value, Path) else value for name, value in items}

    return dataclasses.asdict(config, dict_factory=plain)


def config_from_dict(values: Mapping[str, Any], source: str, below: Layer | None = None) -> Config:
    """Return the configuration that these nested values describe; `source` names them in messages, and
    `below` is a layer under them, as `inherited_layer` makes it.
    """
    return _parse([_layer(values, source), *([below] if below else [])], [])


def read_config(files: Sequence[Path], overrides: Sequence[str] = (), below: Layer | None = None) -> Config:
    """Return the configuration in TOML layers (a later file wins) with dotted overrides on top.

    Args:
        files: TOML files; none means the defaults.
        overrides: command-line words such as `--optim.learning_rate=3e-4`.
        below: a layer under them all, as `inherited_layer` makes it.

    Raises:
        UserError: a file, key, type or value is not as it must be, or has no effect; the message names it.
    """
    given: dict[str, int] = {}
    config = _parse([*file_layers(files, given), *([below] if below else [])], overrides)
    return settle(config, given, {}, report=say)[0]


def file_layers(files: Sequence[Path], given: dict[str, int]) -> list[Layer]:
    """Return TOML files as cyclopts configuration layers, the last one first, as cyclopts ranks them.

    Args:
        files: later ones win; a name stands for one of `named_configs`.
        given: gets, when the layers are asked, the name of each setting and option that is given, with the
            number of the file that it stands in; what the command line gives has the next number.
    """

    def note(rank: int) -> Layer:
        """Return a layer that adds nothing but sees what those before it gave."""

        def layer(app: App, commands: tuple[str, ...], arguments: ArgumentCollection) -> None:
            for argument in arguments:
                if argument.tokens:
                    given.setdefault(argument.name.removeprefix("--"), rank)

        return layer

    layers = [note(len(files))]
    for rank, path in reversed(list(enumerate(map(find_config, files)))):
        layers += [_layer(_read_toml(path), str(path)), note(rank)]
    return layers


def named_configs() -> dict[str, Path]:
    """Return the configurations that come along, by name: those of the checkout, or those of the wheel."""
    package = Path(__file__).resolve().parents[1]
    in_checkout, in_wheel = package.parent / "configs", package / "configs"
    folder = in_checkout if (in_checkout / "tutorial.toml").exists() else in_wheel
    return {path.stem: path for path in sorted(folder.glob("*.toml"))}


def find_config(path: Path) -> Path:
    """Return a TOML file by its path, or by its name where it is one of `named_configs`."""
    return path if path.suffix or path.is_file() else named_configs().get(str(path), path)


def inherited_layer(read: Callable[[str, Path], Mapping[str, Any]]) -> Layer:
    """Return the lowest layer of all, for runs that start from a model (`train.init_from`): what differs from
    its settings afterwards was given by the user.

    Args:
        read: gives the settings, by section, for a model's directory and that of the run.
    """

    def layer(app: App, commands: tuple[str, ...], arguments: ArgumentCollection) -> None:
        origin = _given(arguments, "--train.init_from")
        if origin:
            run = Path(_given(arguments, "--train.run") or Config().train.run)
            _layer(read(origin, run), f"the model in {origin}")(app, commands, arguments)

    return layer


def first_layer(unless: Sequence[str], read: Callable[[Config, Path | None], Mapping[str, Any]]) -> Layer:
    """Return the lowest layer of a command line without files: configs/first.toml. What it says counts as a
    default, not as given.

    Args:
        unless: options beside which the layer is empty, since they decide in its place.
        read: gives what shall differ from the file, for a configuration in which what says how to read a
            text is as the command line has it, and the run's directory where one is given.
    """

    def layer(app: App, commands: tuple[str, ...], arguments: ArgumentCollection) -> None:
        if any(_given(arguments, f"--{name}") for name in unless):
            return
        path = find_config(Path("first"))
        values = _read_toml(path)
        words = {name: _given(arguments, f"--{name}") for name in _SAYS_WHICH_TEXT}
        run = _given(arguments, "--train.run")
        text = _parse([], [f"--{name}={word}" for name, word in words.items() if word])
        own = read(text, Path(run) if run else None)
        _layer(own, "what suits the run")(app, commands, arguments)
        steps = _given(arguments, "--train.steps") or ""
        if steps.isdecimal():  # a shorter run warms up for all of it at most
            values["optim"]["warmup_steps"] = min(int(steps), values["optim"]["warmup_steps"])
        _layer(values, str(path))(app, commands, arguments)

    return layer


def changed(got: Config, wanted: Config) -> dict[str, tuple[Any, Any]]:
    """Return 'section.field' -> (got, wanted), as JSON values, for every field in which configurations
    differ.
    """
    others = dict(flatten(to_dict(wanted)))
    return {
        path.replace("/", "."): (value, others[path])
        for path, value in flatten(to_dict(got))
        if others[path] != value
    }


def differences(got: Config, wanted: Config) -> list[str]:
    """Return 'section.field: got -> wanted' for every field in which two configurations differ."""
    return [f"{name}: {value} -> {other}" for name, (value, other) in changed(got, wanted).items()]


def _given(arguments: ArgumentCollection, name: str) -> str | None:
    """A setting's value as it was written, where it was."""
    argument = arguments.get(name, None)
    return argument.tokens[-1].value if argument is not None and argument.tokens else None


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        raw = path.read_bytes()
        if raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) or b"\0" in raw:
            raise UserError(
                f"configuration file {path} must be UTF-8, got UTF-16 or UTF-32; save it as UTF-8"
            )
        return tomllib.loads(raw.decode("utf-8-sig"))
    except FileNotFoundError:
        known = [*named_configs(), *map(str, path.parent.glob("*.toml"))]
        near = difflib.get_close_matches(str(path), known, n=1)
        hint = f"did you mean {near[0]}?" if near else "llm-jax configs lists those that come along"
        raise UserError(f"configuration file {path} does not exist; {hint}") from None
    except RecursionError:
        raise UserError(f"configuration file {path} cannot be read: too many brackets in brackets") from None
    except (OSError, ValueError) as error:  # no UTF-8, no TOML, a number of 5,000 digits: all are ValueErrors
        raise UserError(f"configuration file {path} cannot be read: {error}") from None


def _layer(values: Mapping[str, Any], source: str) -> Dict:
    for section in values:
        if section not in Config.__dataclass_fields__:
            near = difflib.get_close_matches(section, Config.__dataclass_fields__, n=1)
            hint = f"; did you mean [{near[0]}]?" if near else ""
            raise UserError(f"{section} in {source} must stand in a section: {', '.join(_SECTIONS)}{hint}")
        if not isinstance(values[section], Mapping):
            raise UserError(f"[{section}] in {source} must be a table of settings, got {values[section]!r}")
        for name, value in flatten(values[section]):
            if isinstance(value, int) and abs(value) >= 1 << 64:  # cyclopts writes numbers out
                raise UserError(f"{section}.{name.replace('/', '.')} in {source} must be below 2**64")
    return Dict(dict(values), source=source, allow_unknown=False)


def _parse(layers: Sequence[Layer], overrides: Sequence[str]) -> Config:
    def identity(*, config: Annotated[Config, Parameter(name="*")] = Config()) -> Config:
        return config

    named_as_fields = Parameter(name_transform=str)
    app = App(
        config=layers,
        default_command=identity,
        help_flags=[],
        version_flags=[],
        default_parameter=named_as_fields,
    )
    try:
        command, bound, _ = app.parse_args(list(overrides), exit_on_error=False, print_error=False)
        return command(*bound.args, **bound.kwargs)
    except cyclopts.CycloptsError as error:
        raise UserError(" ".join(str(error).split())) from None
