"""Peak memory of `convert import` on a synthetic Llama, beside the size of its weights.

python benchmarks/import_memory.py [--gigabytes 2] [--param_dtype bfloat16] [--json FILE]

Writes a directory as Hugging Face's save_pretrained does, seeded and random, bfloat16, one shard in memory at
a time, into a temporary folder (which takes three times the size), and imports it in a process of its own.
"One copy" is the parameters as they are stored: with float32, twice the bfloat16 file. Two peaks: memory of
the process's own (anonymous), and all that is resident, in which pages of the mapped files count that the
system takes back when it needs them. Both less the peak of the same import of a model of next to nothing:
what the interpreter and its libraries take.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from safetensors.numpy import save_file

sys.path.insert(0, str(Path(__file__).parents[1]))

from llm_jax.base.tree import flatten
from llm_jax.interop.huggingface.read_config import read_model_config
from llm_jax.interop.huggingface.tensor_names import Part, parts
from llm_jax.model.decoder import abstract_params
from llm_jax.tokenization.byte_letters import BYTE_OF_LETTER

SHARD_BYTES = 250e6
LLAMA: dict[str, Any] = {"model_type": "llama", "hidden_act": "silu", "rms_norm_eps": 1e-5}
LLAMA |= {"num_attention_heads": 16, "num_key_value_heads": 8, "max_position_embeddings": 2048}
LLAMA |= {"vocab_size": 32000, "tie_word_embeddings": False, "torch_dtype": "bfloat16"}


def llama(num_bytes: float) -> dict[str, Any]:
    """config.json of a Llama whose bfloat16 weights take about so many bytes."""
    if num_bytes < 1e8:
        return LLAMA | {
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_hidden_layers": 1,
            "vocab_size": 300,
        }
    width, hidden = 2048, 5632
    ends, layer = 2 * 32000 * width, width * (3 * width + 3 * hidden)
    layers = max(1, round((num_bytes / 2 - ends) / layer))
    return LLAMA | {"hidden_size": width, "intermediate_size": hidden, "num_hidden_layers": layers}


def write_shard(path: Path, shard: list[Part], generator: np.random.Generator) -> None:
    tensors = {
        part.name: (generator.standard_normal(part.shape, np.float32) * 0.02).astype(ml_dtypes.bfloat16)
        for part in shard
    }
    save_file(tensors, path)


def write_model(folder: Path, fields: dict[str, Any]) -> dict[str, int]:
    """Writes the directory; gives the bytes of "file", and of its largest "tensor"."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(fields))
    vocabulary = {letter: token for token, letter in enumerate(BYTE_OF_LETTER)}
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    content = {"version": "1.0", "added_tokens": [], "pre_tokenizer": byte_level, "decoder": byte_level}
    content |= {"model": {"type": "BPE", "vocab": vocabulary, "merges": []}}
    (folder / "tokenizer.json").write_text(json.dumps(content))
    generator, waiting, homes, sizes = np.random.default_rng(0), [], {}, []
    every = list(parts("llama", read_model_config(fields)))
    for part in every:
        waiting.append(part)
        sizes.append(2 * int(np.prod(part.shape)))
        if sum(2 * np.prod(part.shape) for part in waiting) > SHARD_BYTES or part is every[-1]:
            name = f"model-{len(set(homes.values())):05}.safetensors"
            write_shard(folder / name, waiting, generator)
            homes |= {part.name: name for part in waiting}
            waiting = []
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": homes}))
    return {"file": sum(sizes), "tensor": max(sizes)}


def import_peaks(source: Path, out: Path, param_dtype: str) -> dict[str, float]:
    """Imports in a new process; "anonymous" (sampled) and "resident" peaks in bytes, and "seconds"."""
    words = ["-m", "llm_jax.convert", "import", str(source), str(out), "--param_dtype", param_dtype]
    surroundings = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1]), "JAX_PLATFORMS": "cpu"}
    began = time.perf_counter()
    process = subprocess.Popen([sys.executable, *words], env=surroundings)
    anonymous = resident = 0
    while process.poll() is None:
        try:
            lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
        except OSError:
            continue
        found = {line.split(":")[0]: line.split()[1] for line in lines if line.endswith("kB")}
        anonymous = max(anonymous, 1024 * int(found.get("RssAnon", 0)))
        resident = max(resident, 1024 * int(found.get("VmHWM", 0)))
        time.sleep(0.005)
    if process.returncode:
        sys.exit(process.returncode)
    return {"anonymous": anonymous, "resident": resident, "seconds": time.perf_counter() - began}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--gigabytes", type=float, default=2.0)
    parser.add_argument("--param_dtype", choices=("bfloat16", "float32"), default="bfloat16")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_model(folder / "nothing", llama(0))
        nothing = import_peaks(folder / "nothing", folder / "nothing-out", options.param_dtype)
        fields = llama(options.gigabytes * 1e9)
        sizes = write_model(folder / "model", fields)
        peaks = import_peaks(folder / "model", folder / "out", options.param_dtype)
    width = np.dtype(options.param_dtype).itemsize
    leaves = [
        width * int(np.prod(leaf.shape)) for _, leaf in flatten(abstract_params(read_model_config(fields)))
    ]
    results = {
        "file, GB": sizes["file"] / 1e9,
        "one copy, GB": sum(leaves) / 1e9,
        "largest tensor of the file, GB": sizes["tensor"] / 1e9,
        "largest leaf (all layers of one kind), GB": max(leaves) / 1e9,
        "interpreter and libraries, GB": nothing["anonymous"] / 1e9,
        "peak of its own above that, GB": (peaks["anonymous"] - nothing["anonymous"]) / 1e9,
        "peak resident above that, GB": (peaks["resident"] - nothing["resident"]) / 1e9,
        "copies": (peaks["anonymous"] - nothing["anonymous"]) / sum(leaves),
        "seconds": peaks["seconds"],
    }
    for label, value in results.items():
        print(f"{label}: {value:.3f}")
    if options.json:
        options.json.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
