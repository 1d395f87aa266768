"""Command: `llm-jax configs`."""

import re
from itertools import takewhile

from llm_jax.base.terminal import console, say_result
from llm_jax.cli import command
from llm_jax.config.load import named_configs


def configs() -> None:
    """List the configurations that come along; train, profile, explain and verify take one by its name.

    Examples:
      llm-jax configs
    """
    from rich.table import Table

    table, found = Table("name", "what it is"), {}
    for name, path in named_configs().items():
        lines = takewhile(lambda line: line.startswith("#"), path.read_text(encoding="utf-8").splitlines())
        about = " ".join(line.removeprefix("#").strip() for line in lines)
        found[name] = {"path": str(path), "about": re.split(r"(?<=\.) ", about)[0]}
        table.add_row(name, found[name]["about"])
    console(width=120).print(table)
    say_result(found)


if __name__ == "__main__":
    command.run(configs)
