"""llama.cpp (package xllamacpp): what it continues, and how likely it finds a given text."""

from pathlib import Path

import numpy as np
from xllamacpp import CommonParams, Server, ggml_type, llama_flash_attn_type

_OFTEN_ENOUGH = 1000  # most likely tokens to ask for; a rarer one is looked up among all


def open_llama_cpp(path: Path, context: int, *, threads: int = 2, exact: bool = True) -> Server:
    """A model for one text at a time.

    Args:
        path: a GGUF file.
        context: tokens of prompt and answer.
        threads: of its products.
        exact: with a cache in float32 and without flash attention. Its usual ones, which are faster, move
            log-probabilities by 1e-3, at worst 2e-2.
    """
    params = CommonParams()
    params.model.path = str(path)
    params.n_ctx, params.n_parallel, params.n_gpu_layers = context, 1, 0
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads
    params.warmup, params.verbosity = False, 1
    if exact:
        params.cache_type_k = params.cache_type_v = ggml_type.GGML_TYPE_F32
        params.flash_attn_type = llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
    return Server(params)


def llama_cpp_greedy(server: Server, prompt: str, tokens: int) -> tuple[list[int], str, np.ndarray]:
    """Ids, text and log-probabilities."""
    request = {"prompt": prompt, "n_predict": tokens, "temperature": 0, "logprobs": 1, "cache_prompt": False}
    choice = server.handle_completions(request)["choices"][0]
    made = choice["logprobs"]["content"]
    return [each["id"] for each in made], choice["text"], np.array([each["logprob"] for each in made])


def llama_cpp_scores(server: Server, ids_T: np.ndarray, vocab_size: int) -> np.ndarray:
    """Log-probability of each token after those before it, float64 [T - 1]; it is asked for one at a time."""

    def after(position: int, most: int) -> dict[int, float]:
        request = {"prompt": ids_T[:position].tolist(), "n_predict": 1, "temperature": 0, "logprobs": most}
        (choice,) = server.handle_completions(request | {"cache_prompt": True})["choices"]
        (made,) = choice["logprobs"]["content"]
        return {each["id"]: each["logprob"] for each in made["top_logprobs"]}

    scores = []
    for position, token in enumerate(map(int, ids_T[1:]), 1):
        found = after(position, _OFTEN_ENOUGH)
        scores.append(found[token] if token in found else after(position, vocab_size)[token])
    return np.array(scores)
