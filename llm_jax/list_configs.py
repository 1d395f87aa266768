"""Command: `llm-jax configs`."""

from llm_jax.base.terminal import console, say_result
from llm_jax.cli import command
from llm_jax.config.load import named_configs


def configs() -> None:
    """Lists the configurations that come along; train, profile, explain and verify take one by its name.

    Examples:
      llm-jax configs
      llm-jax train sales_textbook_quick --corpus my_book.txt --run runs/wide --steps 500
    """
    from rich.table import Table

    table, found = Table("name", "what it is"), {}
    for name, path in named_configs().items():
        lines = path.read_text(encoding="utf-8").splitlines()
        found[name] = {"path": str(path), "about": lines[0].removeprefix("#").strip()}
        table.add_row(name, found[name]["about"])
    console(width=120).print(table)
    say_result(found)


if __name__ == "__main__":
    command.run(configs)
