"""`llm-jax COMMAND ...`, and `python -m llm_jax COMMAND ...`: the same as `python -m llm_jax.COMMAND`."""

import difflib
import importlib
import runpy
import sys

from llm_jax.base.errors import UserError
from llm_jax.base.terminal import close_output, open_output, remark, say

COMMANDS = {
    "prepare": "a text into tokens, and what is in it",
    "train": "a decoder on a text; resumes automatically",
    "fit": "a model to labelled texts: classification, tagging",
    "predict": "the labels of texts, by a model that fit trained",
    "evaluate": "a trained model on held-out text",
    "harness": "a trained model on tasks of lm-eval",
    "generate": "text from a trained model",
    "chat": "a conversation with an open model, in the terminal",
    "report": "a run as a page; several runs compared",
    "explain": "a model tensor by tensor, as a page and in the terminal",
    "replay": "a training step again, token by token: what made the loss jump",
    "profile": "where the time of a training step goes, by part of the model",
    "convert": "open models, GGUF files and the torch tutorial in, and ours out",
    "verify": "proofs: parity with torch, exact resume, muP",
    "runs": "the runs in a folder: step, loss, best loss, size on disk",
    "configs": "the configurations that come along, for train NAME",
    "doctor": "versions, devices, caches, extras: what works here and what is missing",
}
# Of those whose name another folder of the package has.
MODULES = {"runs": "list_runs", "configs": "list_configs"}
COMPLETION = "--install-completion"
_LAST_LINES = f"""
First:        llm-jax train --run runs/first
Then:         llm-jax generate runs/first
Tab completes after: llm-jax {COMPLETION}
Each command has --help; llm-jax --version says the version."""


def main() -> None:
    """Run the command that the first word names; without one, list them."""
    open_output()
    words = sys.argv[1:]
    if not words or words[0] in ("-h", "--help"):
        say("Usage: llm-jax COMMAND [ARGUMENTS]\n\nCommands:")
        for name, clause in COMMANDS.items():
            say(f"  {name:10} {clause}")
        say(_LAST_LINES)
        sys.exit(close_output(0))
    if words[0] == "--version":
        from llm_jax.cli.command import say_version

        say_version()
    if words[0] == COMPLETION:
        sys.exit(close_output(_install_completion(words[1:])))
    if words[0] not in COMMANDS:
        near = difflib.get_close_matches(words[0], COMMANDS, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(COMMANDS)}"
        remark(f"error: unknown command {words[0]!r} ({hint})", style="bold red")
        sys.exit(close_output(2))
    module = f"llm_jax.{MODULES.get(words[0], words[0])}"
    sys.argv = [module, *words[1:]]
    runpy.run_module(module, run_name="__main__")


def _install_completion(words: list[str]) -> int:
    from llm_jax.cli.completion import install

    modules = {name: importlib.import_module(f"llm_jax.{MODULES.get(name, name)}") for name in COMMANDS}
    commands = {name: getattr(module, name) for name, module in modules.items()}
    try:
        path = install(commands, words[0] if words else None)
    except (UserError, OSError) as error:
        remark(f"error: {error}", style="bold red")
        return 2
    say(f"completion is in {path}; it works in the next shell")
    return 0


if __name__ == "__main__":
    main()
