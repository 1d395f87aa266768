"""A real open model through our commands, beside transformers and llama.cpp: import, scores, greedy
text, export.

python benchmarks/open_model.py SOURCE TEXT [--tokens 512] [--json FILE]

SOURCE is a GGUF file or a directory of Hugging Face's, TEXT a text file. The model is imported, exported as
Hugging Face's directory, which transformers loads, and both score the beginning of TEXT and continue five
prompts greedily by 40 tokens, in float32. llama.cpp (package xllamacpp) scores the same ids with our export
to a GGUF file in float32, and with SOURCE where that is one: there it rounds what enters each product to
eight bits, too. A temporary folder takes four bytes a parameter, three times.
"""

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
import transformers

sys.path.insert(0, str(Path(__file__).parents[1]))

import llm_jax
from benchmarks.llama_cpp import llama_cpp_scores, open_llama_cpp
from llm_jax.config.decoding import SamplingConfig
from llm_jax.inference.decode import generate_tokens
from llm_jax.inference.request import Generation
from llm_jax.interop.export_model import export_gguf, export_huggingface
from llm_jax.interop.import_model import import_model

PROMPTS = (
    "The capital of France is",
    "Once upon a time",
    "def fibonacci(n):",
    "A good salesperson",
    "The three laws of thermodynamics are",
)
NEW_TOKENS = 40


def log_probabilities(logits_TV: np.ndarray, ids_T: np.ndarray) -> np.ndarray:
    """Of each next token, float64 [T - 1]."""
    scores = torch.from_numpy(logits_TV.astype(np.float64))
    return torch.log_softmax(scores, -1).numpy()[np.arange(len(ids_T) - 1), ids_T[1:]]


@torch.no_grad()
def theirs_greedy(model: transformers.PreTrainedModel, ids: list[int]) -> list[int]:
    options = transformers.GenerationConfig(max_new_tokens=NEW_TOKENS, do_sample=False, pad_token_id=0)
    prompt = torch.tensor([ids])
    made = model.generate(prompt, attention_mask=torch.ones_like(prompt), generation_config=options)
    return made[0, len(ids) :].tolist()


def ours_greedy(model: llm_jax.LanguageModel, ids: list[int], tokens: int = NEW_TOKENS) -> list[int]:
    request = Generation(max_new_tokens=tokens, sampling=SamplingConfig(temperature=0))
    rows = generate_tokens(model.layout, [ids], request)
    return [int(row[0]) for row in rows]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("source", type=Path)
    parser.add_argument("text", type=Path)
    parser.add_argument("--tokens", type=int, default=512)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        print(import_model(options.source, Path(folder) / "ours", "float32"))
        imported = time.perf_counter() - began
        print(export_huggingface(Path(folder) / "ours", Path(folder) / "theirs"))
        print(export_gguf(Path(folder) / "ours", Path(folder) / "model.gguf", "float32"))
        ours = llm_jax.load(Path(folder) / "ours")
        exported = Path(folder) / "theirs"
        theirs = transformers.AutoModelForCausalLM.from_pretrained(exported, dtype=torch.float32).eval()
        ids_T = np.array(ours.encode_prompt(options.text.read_text(encoding="utf-8")))[: options.tokens]
        logits_TV = ours.logits(ids_T)
        with torch.no_grad():
            their_logits_TV = theirs(torch.from_numpy(ids_T[None].astype(np.int64))).logits[0].numpy()
        difference = logits_TV - their_logits_TV
        found, wanted = log_probabilities(logits_TV, ids_T), log_probabilities(their_logits_TV, ids_T)
        prompts = [ours.encode_prompt(prompt) for prompt in PROMPTS]
        files = {"our float32 file": Path(folder) / "model.gguf"}
        if options.source.is_file():
            files["the source"] = options.source
        of_llama_cpp = {
            which: llama_cpp_scores(
                open_llama_cpp(file, ours.config.context_length), ids_T, ours.config.vocab_size
            )
            for which, file in files.items()
        }
        same = [ours_greedy(ours, ids) == theirs_greedy(theirs, ids) for ids in prompts]
    results = {
        "import, s": round(imported, 1),
        "largest difference of logits": float(np.abs(difference).max()),
        "difference of logits, share of their norm": float(
            np.linalg.norm(difference) / np.linalg.norm(their_logits_TV)
        ),
        "largest difference of log-probabilities": float(np.abs(found - wanted).max()),
        "nats a token, ours and theirs": [-float(found.mean()), -float(wanted.mean())],
        "identical greedy continuations": f"{sum(same)} of {len(same)}",
    }
    for which, scores in of_llama_cpp.items():
        far = np.abs(found - scores)
        results[f"llama.cpp on {which}: difference of log-probabilities, median and largest"] = [
            float(np.median(far)),
            float(far.max()),
        ]
        results[f"llama.cpp on {which}: nats a token"] = -float(scores.mean())
    for name, value in results.items():
        print(f"{name}: {value}")
    if options.json:
        options.json.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
