"""A model of ours in transformers and llama.cpp: exported both ways, does it go on with the same words?

llm-jax train --data.tokenizer bpe --data.bpe_vocab_size 1024 --data.no-compact_vocab \
    --model.context_length 128 --model.d_model 128 --model.num_layers 4 --model.num_heads 4 \
    --model.num_kv_heads 2 --model.d_ff 352 --model.positions rotary --model.norm rms \
    --model.activation silu --model.gated_mlp --model.no-output_bias --model.no-mlp_bias \
    --model.no-head_bias --model.dropout 0 --train.batch_size 8 --train.steps 200 --train.run runs/llama
python benchmarks/exports.py runs/llama "The salesperson" "A customer" [--tokens 40] [--dtype float32]

DIR is a run, or what `convert import` made. It is exported as Hugging Face's directory and as a GGUF file;
transformers (with the exported tokenizer), llama.cpp (package xllamacpp) and this program continue each
prompt greedily. llama.cpp's log-probabilities of its tokens stand beside ours of the same tokens.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

sys.path.insert(0, str(Path(__file__).parents[1]))

import llm_jax
from benchmarks.llama_cpp import Server, llama_cpp_greedy, open_llama_cpp
from benchmarks.open_model import log_probabilities, ours_greedy
from llm_jax.interop.export_model import export_gguf, export_huggingface
from llm_jax.tokenization.protocol import decode


def transformers_greedy(folder: Path, prompt: str, tokens: int) -> tuple[list[int], str]:
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    options = transformers.GenerationConfig(max_new_tokens=tokens, do_sample=False, pad_token_id=0)
    given = tokenizer(prompt, return_tensors="pt")
    with torch.no_grad():
        made = model.generate(
            given["input_ids"], attention_mask=given["attention_mask"], generation_config=options
        )
    ids = made[0, given["input_ids"].shape[1] :].tolist()
    return ids, tokenizer.decode(ids)


def continuation(
    model: llm_jax.LanguageModel, folder: Path, server: Server, prompt: str, tokens: int
) -> dict[str, Any]:
    """What each of the three makes of a prompt."""
    ids = model.encode_prompt(prompt)
    ours = ours_greedy(model, ids, tokens)
    torch_ids, torch_text = transformers_greedy(folder, prompt, tokens)
    cpp_ids, cpp_text, cpp_scores = llama_cpp_greedy(server, prompt, tokens)
    every = np.array([*ids, *cpp_ids])
    scores = log_probabilities(model.logits(every), every)[len(ids) - 1 :]
    return {
        "prompt": prompt,
        "ours": decode(model.tokenizer, ours),
        "transformers": torch_text,
        "llama.cpp": cpp_text,
        "same ids as transformers": torch_ids == ours,
        "same ids as llama.cpp": cpp_ids == ours,
        "largest difference of log-probabilities to llama.cpp": float(np.abs(scores - cpp_scores).max()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("directory", type=Path)
    parser.add_argument("prompts", nargs="+")
    parser.add_argument("--tokens", type=int, default=40)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    model = llm_jax.load(options.directory)
    # Past its context ours slides a window; the others go on without one, or stop.
    room = model.config.context_length - options.tokens
    if long := [prompt for prompt in options.prompts if len(model.encode_prompt(prompt)) > room]:
        parser.error(f"prompt and --tokens must fit into {room + options.tokens} tokens, got {long[0]!r}")
    with tempfile.TemporaryDirectory() as folder:
        directory, file = Path(folder) / "theirs", Path(folder) / "model.gguf"
        print(export_huggingface(options.directory, directory))
        print(export_gguf(options.directory, file, options.dtype))
        server = open_llama_cpp(file, model.config.context_length)
        rows = [continuation(model, directory, server, prompt, options.tokens) for prompt in options.prompts]
        del server
    for row in rows:
        for name, value in row.items():
            print(f"{name}: {value!r}")
    for other in ("transformers", "llama.cpp"):
        same = sum(row[f"same ids as {other}"] for row in rows)
        print(f"the same greedy tokens as {other}: {same} of {len(rows)}")
    if options.json:
        options.json.write_text(json.dumps(rows, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
