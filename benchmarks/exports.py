"""A model of ours in transformers and llama.cpp: exported both ways, does it go on with the same words?

python -m llm_jax.train --data.tokenizer bpe --data.bpe_vocab_size 1024 --data.compact_vocab false \
    --model.positions rotary --model.norm rms --model.activation silu --model.gated_mlp true \
    --model.num_kv_heads 2 --model.d_ff 352 --model.output_bias false --model.mlp_bias false \
    --model.head_bias false --model.dropout 0 --train.run runs/llama --time 1m
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
import xllamacpp

sys.path.insert(0, str(Path(__file__).parents[1]))

import llm_jax
from benchmarks.open_model import log_probabilities
from llm_jax.config import SamplingConfig
from llm_jax.exporting import export_gguf, export_huggingface


def transformers_text(folder: Path, prompt: str, tokens: int) -> str:
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    options = transformers.GenerationConfig(max_new_tokens=tokens, do_sample=False, pad_token_id=0)
    given = tokenizer(prompt, return_tensors="pt")
    with torch.no_grad():
        made = model.generate(
            given["input_ids"], attention_mask=given["attention_mask"], generation_config=options
        )
    return tokenizer.decode(made[0, given["input_ids"].shape[1] :], skip_special_tokens=True)


def open_llama_cpp(path: Path, context: int) -> xllamacpp.Server:
    params = xllamacpp.CommonParams()
    params.model.path = str(path)
    params.n_ctx, params.n_parallel, params.n_gpu_layers = context, 1, 0
    params.cpuparams.n_threads = 2
    params.warmup = False
    return xllamacpp.Server(params)


def llama_cpp_reply(server: xllamacpp.Server, prompt: str | list[int], tokens: int) -> dict[str, Any]:
    request = {"prompt": prompt, "n_predict": tokens, "temperature": 0, "n_probs": 1, "return_tokens": True}
    return server.handle_completions(request | {"cache_prompt": False, "post_sampling_probs": False})


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
    ours = llm_jax.load(options.directory)
    greedy = SamplingConfig(temperature=0)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        directory, file = Path(folder) / "theirs", Path(folder) / "model.gguf"
        print(export_huggingface(options.directory, directory))
        print(export_gguf(options.directory, file, options.dtype))
        server = open_llama_cpp(file, ours.config.context_length)
        for prompt in options.prompts:
            ids = ours.tokenizer.encode(prompt).tolist()
            text = ours.generate(prompt, max_new_tokens=options.tokens, sampling=greedy)
            reply = llama_cpp_reply(server, prompt, options.tokens)
            made = reply["tokens"]
            theirs = [each["logprob"] for each in reply["completion_probabilities"]]
            every = np.array([*ids, *made])
            wanted = log_probabilities(ours.logits(every), every)[len(ids) - 1 :]
            rows.append(
                {
                    "prompt": prompt,
                    "ours": text,
                    "transformers": transformers_text(directory, prompt, options.tokens),
                    "llama.cpp": reply["content"],
                    "largest difference of log-probabilities": float(np.abs(wanted - theirs).max()),
                }
            )
    for row in rows:
        for name, value in row.items():
            print(f"{name}: {value!r}")
    for other in ("transformers", "llama.cpp"):
        same = sum(row[other] == row["ours"] for row in rows)
        print(f"the same greedy text as {other}: {same} of {len(rows)}")
    if options.json:
        options.json.write_text(json.dumps(rows, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
