"""What `--help` looks like: settings in groups, the common ones first, as wide as the terminal and no wider.

cyclopts reads a command's docstring and parameters; how they are laid out is here. Commands to be pasted, and
all else that is indented, keep their lines.
"""

import re
import textwrap
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cyclopts.help import HelpEntry, HelpPanel
    from rich.console import Console, ConsoleOptions

HELP_ALL = "--help-all"
HELP = {"--help", "-h", HELP_ALL}
# Section of a configuration -> what stands above its settings.
_SECTIONS = {"model": "Model", "data": "Data", "optim": "Optimizer", "train": "Run", "task": "Task"}
# Short name on the command line -> setting, in every command that takes a whole configuration.
ALIASES = {
    "--steps": "--train.steps",
    "--corpus": "--data.corpus",
    "--run": "--train.run",
    "--from": "--train.init_from",
    "--task": "--task.name",
    "--label": "--task.label_column",
    "--text_column": "--data.text_column",
}
# Settings that --help shows; --help-all shows all.
COMMON = {
    *("model.context_length", "model.d_model", "model.num_layers", "model.num_heads", "model.dropout"),
    *("data.corpus", "data.tokenizer", "optim.optimizer", "optim.learning_rate", "optim.schedule"),
    *("train.run", "train.init_from", "train.seed", "train.steps", "train.batch_size"),
}
_WIDEST = 100  # columns of text, however wide the terminal
_NAMES = 30  # columns for an option's name; a longer one has a line of its own


class Formatter:
    """Lays help texts out, for cyclopts.

    Args:
        everything: whether settings that are not common are shown.
        aliases: short names of settings.
    """

    def __init__(self, everything: bool, aliases: dict[str, str]):
        self._everything = everything
        self._aliases = {setting: short for short, setting in aliases.items()}

    def render_usage(self, console: "Console", options: "ConsoleOptions", usage: Any) -> None:
        """Print the first line."""
        console.print(f"Usage: {_plain(usage).strip().removeprefix('Usage: ')}", soft_wrap=True)

    def render_description(self, console: "Console", options: "ConsoleOptions", description: Any) -> None:
        """Print what a command does, and its examples."""
        for paragraph in paragraphs(_plain(description)):
            console.print()
            _print_lines(console, paragraph)

    def __call__(self, console: "Console", options: "ConsoleOptions", panel: "HelpPanel") -> None:
        """Print a group of options, or of commands."""
        groups: dict[str, list[HelpEntry]] = {}
        for entry in panel.entries:
            if panel.format == "command" and entry.names and entry.names[0].startswith("-"):
                continue  # --help and --version, which the last line names
            title = _section(entry)
            if self._everything or not title or _setting(entry) in COMMON:
                groups.setdefault(title or _title(panel, entry), []).append(entry)
        order = [title for title in groups if title not in _SECTIONS.values()] + list(_SECTIONS.values())
        for title in sorted(groups, key=order.index):
            console.print(f"\n{title}", style="bold")
            width = min(console.width, _WIDEST)
            lines = [line for entry in groups[title] for line in self._entry(width, entry)]
            console.print("\n".join(lines), soft_wrap=True)

    def _entry(self, width: int, entry: "HelpEntry") -> Iterator[str]:
        """The lines for an option, or a command."""
        shown = entry.copy(negative_names=()) if entry.default == "False" else entry
        names = list(shown.display_labels_with_metavar or shown.names)
        if short := self._aliases.get(f"--{_setting(entry)}"):
            names.insert(0, short)
        name = ", ".join(names)
        indent = 2 + _NAMES if width > 2 * _NAMES else 6
        lines = textwrap.wrap(_told(entry), width - indent, break_on_hyphens=False) or [""]
        if len(name) + 2 < indent - 1:
            yield f"  {name}".ljust(indent) + lines.pop(0)
        else:
            yield from (f"  {line}" for line in textwrap.wrap(name, width - 2, break_on_hyphens=False))
        yield from (" " * indent + line for line in lines if line)


def paragraphs(text: str) -> Iterator[list[str]]:
    """Return the paragraphs of a docstring as lines: one for each whose lines are to be filled, or its
    own.
    """
    for block in re.split(r"\n\s*\n", textwrap.dedent(text).strip("\n")):
        lines = block.splitlines()
        if any(line.startswith("  ") for line in lines):
            yield lines
        elif lines:
            yield [" ".join(line.strip() for line in lines)]


def closing(more: bool) -> str:
    """Return the last line: options that every command has.

    Args:
        more: whether there are settings that only --help-all shows.
    """
    everything = f"{HELP_ALL}: all settings. " if more else ""
    return f"{everything}--version: the version. --json: end in a line of JSON on a terminal, too."


def _print_lines(console: "Console", lines: Sequence[str]) -> None:
    for line in lines:
        if line.startswith("  "):
            console.print(line, soft_wrap=True)  # to be pasted
        else:
            for part in textwrap.wrap(line, min(console.width, _WIDEST), break_on_hyphens=False):
                console.print(part, soft_wrap=True)


def _told(entry: "HelpEntry") -> str:
    """What is said of an option: its docstring, then what it may be, and what it is without being given."""
    told = " ".join(_plain(entry.description).split())
    if entry.choices:
        told += f" [{', '.join(entry.choices)}]"
    if entry.required:
        told += " (required)"
    elif entry.default not in (None, '""', "()", "False"):
        told += f" (default: {entry.default})"
    return told


def _setting(entry: "HelpEntry") -> str:
    return entry.names[0].removeprefix("--") if entry.names else ""


def _section(entry: "HelpEntry") -> str:
    """The title above a setting of a configuration; '' for what is none."""
    section, dot, _ = _setting(entry).partition(".")
    return _SECTIONS.get(section, "") if dot else ""


def _title(panel: "HelpPanel", entry: "HelpEntry") -> str:
    """The title above what is no setting of a configuration."""
    return "Commands" if panel.format == "command" else "Arguments" if entry.positional_label else "Options"


def _plain(text: Any) -> str:
    """A text of cyclopts as it was written."""
    inner = getattr(text, "primary_renderable", text)
    return getattr(inner, "plain", None) or (inner if isinstance(inner, str) else "")
