"""lm-eval on a model of ours beside its own backend for Hugging Face: every answer, every score, the time.

python benchmarks/harness.py DIR [--bos TOKEN] [--eos TOKEN] [--max_length 512] [--json FILE]

DIR is what `convert import` made. It is exported for transformers into a temporary folder. The tasks are made
of the embedded handbook and need no network: which of four words ends a sentence, the perplexity of
paragraphs (one many times as long as max_length), and sentences continued up to a full stop. Everything is
float32.
"""

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import lm_eval
import numpy as np
import transformers

sys.path.insert(0, str(Path(__file__).parents[1]))

import llm_jax
from llm_jax.interop.export_model import export_huggingface
from llm_jax.language_model.harness_model import Tasks, asking, run_tasks
from tests.parity.harness_tasks import NAMES, answers, log_likelihoods, run_theirs, write_tasks

HANDBOOK = Path(__file__).parents[1] / "data" / "sales_handbook.txt"


def scores(results: dict[str, Any]) -> dict[str, float]:
    """'task measure' -> value, of all that lm-eval says."""
    return {
        f"{task} {measure.partition(',')[0]}": value
        for task, values in results["results"].items()
        for measure, value in values.items()
        if isinstance(value, float) and "stderr" not in measure
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("directory", type=Path)
    parser.add_argument("--bos", default="<|im_start|>", help="stands before texts without context")
    parser.add_argument("--eos", default="<|im_end|>", help="ends what the model writes")
    parser.add_argument("--max_length", type=int, default=512)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_tasks(folder, HANDBOOK.read_text(encoding="utf-8"))
        print(export_huggingface(options.directory, folder / "theirs"))
        model = llm_jax.load(options.directory)
        asked = asking(model, prefix=options.bos, max_length=options.max_length, batch_tokens=2048)
        began = time.perf_counter()
        ours = run_tasks(asked, Tasks(NAMES, folder))
        between = time.perf_counter()
        theirs = run_theirs(
            folder / "theirs", folder, bos=options.bos, eos=options.eos, max_length=options.max_length
        )
        ended = time.perf_counter()
    found: dict[str, Any] = {
        "versions": {library.__name__: library.__version__ for library in (lm_eval, transformers)},
        "seconds, ours and theirs": [round(between - began, 1), round(ended - between, 1)],
    }
    for task in NAMES[:2]:
        mine, wanted = (np.array(log_likelihoods(side, task)) for side in (ours, theirs))
        found[f"{task}: requests"] = len(mine)
        found[f"{task}: largest difference of a log-likelihood, nats"] = float(np.abs(mine - wanted).max())
        found[f"{task}: largest difference, share of it"] = float(np.abs(mine / wanted - 1).max())
    same = [a == b for a, b in zip(answers(ours, NAMES[2]), answers(theirs, NAMES[2]), strict=True)]
    found[f"{NAMES[2]}: identical texts"] = f"{sum(same)} of {len(same)}"
    mine, wanted = scores(ours), scores(theirs)
    for name, value in found.items():
        print(f"{name}: {value}")
    print(f"\n{'':44}{'ours':>14}{'theirs':>14}")
    for name, value in mine.items():
        print(f"{name:44}{value:14.8f}{wanted[name]:14.8f}")
    if options.json:
        found["scores"] = {name: [value, wanted[name]] for name, value in mine.items()}
        options.json.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
