"""`python -m llm_jax COMMAND ...` and the console script `llm-jax COMMAND ...`: the same as `python -m
llm_jax.COMMAND`.
"""

import difflib
import runpy
import sys

from llm_jax.base.terminal import close_output, open_output, remark, say

COMMANDS = {
    "prepare": "a text into tokens, and what is in it",
    "train": "a decoder on a text; resumes automatically",
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
}


def main() -> None:
    """Run the command that the first word names; without one, list them."""
    open_output()
    words = sys.argv[1:]
    if not words or words[0] in ("-h", "--help"):
        say("Usage: llm-jax COMMAND [ARGUMENTS]\n\nCommands (each has --help):")
        for name, clause in COMMANDS.items():
            say(f"  {name:10} {clause}")
        sys.exit(close_output(0))
    if words[0] not in COMMANDS:
        near = difflib.get_close_matches(words[0], COMMANDS, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(COMMANDS)}"
        remark(f"error: unknown command {words[0]!r} ({hint})", style="bold red")
        sys.exit(close_output(2))
    sys.argv = [f"llm_jax.{words[0]}", *words[1:]]
    runpy.run_module(f"llm_jax.{words[0]}", run_name="__main__")


if __name__ == "__main__":
    main()
