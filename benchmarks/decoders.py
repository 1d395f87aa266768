"""Greedy decoding and the reading of prompts, as three programs do it that are timed beside one another.

python benchmarks/decoders.py PROGRAM MODEL TASK [--threads N] [--static] [--compiled] [--show]

is one side's process, as `decoding.py` starts it. MODEL is what that program reads: a directory of `convert
import`, its export for transformers, or a GGUF file.
"""

import argparse
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np

from benchmarks.turns import serve

Made = list[list[int]]  # new ids of each row


class Task(NamedTuple):
    """What is asked for: rows of random ids, each continued greedily."""

    rows: int
    prompt: int  # ids of each row
    new: int  # ids to be made for each row

    @property
    def tokens(self) -> int:
        """What is counted: ids that are made, or those that are read where one is made."""
        return self.rows * (self.prompt if self.new == 1 else self.new)

    def prompts(self) -> Made:
        """Ids that every vocabulary has, and that are no special tokens of a usual one."""
        return np.random.default_rng(self.rows).integers(1_000, 10_000, (self.rows, self.prompt)).tolist()


TASKS = {
    "1 row": Task(1, 8, 64),
    "8 rows": Task(8, 8, 32),
    "32 rows": Task(32, 8, 32),
    "prompt of 512": Task(1, 512, 1),
}


def ours(model: Path, task: Task) -> Callable[[], Made]:
    """The generator behind `generate` and `chat`."""
    import llm_jax
    from llm_jax.config.decoding import SamplingConfig
    from llm_jax.inference.decode import generate_tokens
    from llm_jax.inference.request import Generation

    layout, prompts = llm_jax.load(model).layout, task.prompts()
    request = Generation(max_new_tokens=task.new, sampling=SamplingConfig(temperature=0))

    def make() -> Made:
        return np.stack(list(generate_tokens(layout, prompts, request)), axis=1).tolist()

    return make


def transformers(
    model: Path, task: Task, *, threads: int, static: bool, compiled: bool
) -> Callable[[], Made]:
    """`generate` with the cache that grows, or a static one, whose step may be compiled."""
    import torch
    from transformers import AutoModelForCausalLM, GenerationConfig
    from transformers.generation.configuration_utils import CompileConfig

    torch.set_num_threads(threads)
    loaded = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32).eval()
    loaded.generation_config = GenerationConfig()  # random ids: nothing ends a text
    ids = torch.tensor(task.prompts())
    compiling = CompileConfig(fullgraph=False, mode="default")
    compiling._compile_all_devices = True  # it compiles for a GPU alone unless told so
    options = GenerationConfig(
        max_new_tokens=task.new,
        do_sample=False,
        pad_token_id=0,
        cache_implementation="static" if static else None,
        compile_config=compiling if compiled else None,
        disable_compile=not compiled,
    )

    @torch.inference_mode()
    def make() -> Made:
        made = loaded.generate(ids, attention_mask=torch.ones_like(ids), generation_config=options)
        return made[:, ids.shape[1] :].tolist()

    return make


def llama_cpp(model: Path, task: Task, *, threads: int) -> Callable[[], Made]:
    """Its server's completions, inside this process; one row."""
    from benchmarks.llama_cpp import open_llama_cpp

    (prompt,) = task.prompts()
    server = open_llama_cpp(model, task.prompt + task.new + 8, threads=threads, exact=False)
    request = {"prompt": prompt, "n_predict": task.new, "temperature": 0, "top_k": 1}
    request |= {"ignore_eos": True, "cache_prompt": False, "return_tokens": True, "logprobs": 1}

    def make() -> Made:
        (choice,) = server.handle_completions(request)["choices"]
        return [[each["id"] for each in choice["logprobs"]["content"]]]

    return make


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("program", choices=("llm_jax", "transformers", "llama.cpp"))
    parser.add_argument("model", type=Path)
    parser.add_argument("task", choices=TASKS)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--static", action="store_true")
    parser.add_argument("--compiled", action="store_true")
    parser.add_argument("--show", action="store_true", help="the ids that are made, and nothing is timed")
    options = parser.parse_args()
    task = TASKS[options.task]
    if options.program == "llm_jax":
        make = ours(options.model, task)
    elif options.program == "transformers":
        make = transformers(
            options.model, task, threads=options.threads, static=options.static, compiled=options.compiled
        )
    else:
        make = llama_cpp(options.model, task, threads=options.threads)
    if options.show:
        print(json.dumps(make()))
        return

    def step() -> int:
        make()
        return task.tokens

    serve(step)


if __name__ == "__main__":
    main()
