"""`python -m llm_jax DOOR ...` and the console script `llm-jax DOOR ...`: the same doors as `python -m
llm_jax.DOOR`.
"""

import difflib
import runpy
import sys

from llm_jax.base.terminal import close_output, open_output, remark, say

DOORS = {
    "prepare": "a text into tokens, and what is in it",
    "train": "a decoder on a text; goes on where it was stopped",
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
    """Runs the door that the first word names; without one, lists them."""
    open_output()
    words = sys.argv[1:]
    if not words or words[0] in ("-h", "--help"):
        say("Usage: llm-jax DOOR [ARGUMENTS]\n\nDoors (each has --help):")
        for name, clause in DOORS.items():
            say(f"  {name:10} {clause}")
        sys.exit(close_output(0))
    if words[0] not in DOORS:
        near = difflib.get_close_matches(words[0], DOORS, n=1)
        hint = f"did you mean {near[0]}?" if near else f"the doors are {', '.join(DOORS)}"
        remark(f"error: {words[0]} is not a door of llm-jax; {hint}", style="bold red")
        sys.exit(close_output(2))
    sys.argv = [f"llm_jax.{words[0]}", *words[1:]]
    runpy.run_module(f"llm_jax.{words[0]}", run_name="__main__")


if __name__ == "__main__":
    main()
