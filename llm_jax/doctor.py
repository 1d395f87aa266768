"""Command: `llm-jax doctor`."""

import sys

from llm_jax.base.terminal import console, say, say_result
from llm_jax.cli import command

_STYLES = {"ok": "green", "not there": "dim", "BROKEN": "bold red"}


def doctor() -> None:
    """Look at what this installation runs on: versions, devices, caches, disk, optional extras, tokenizers.

    Says how to get what is not there. The exit status is 1 if something is broken, so that nothing trains.

    Examples:
      llm-jax doctor
    """
    from rich.table import Table
    from rich.text import Text

    from llm_jax.cli.health import examine

    found = examine()
    table = Table("what", "state", "found", title="llm-jax doctor")
    for one in found:
        table.add_row(one.what, Text(one.state, _STYLES[one.state]), one.told)
    console(width=120).print(table)
    broken = [one.what for one in found if one.state == "BROKEN"]
    say(f"broken: {', '.join(broken)}" if broken else "all that training needs works")
    say_result({"healthy": not broken, "found": [one._asdict() for one in found]})
    if broken:
        sys.exit(1)


if __name__ == "__main__":
    command.run(doctor)
