"""Door: `python -m llm_jax.generate DIR --prompt "..."`."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from llm_jax import command
from llm_jax.errors import UserError


def generate(
    directory: Path,
    *,
    prompt: str = "The salesperson",
    max_new_tokens: int = 100,
    samples: int = 1,
    greedy: bool = False,
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
    min_p: float = 0.0,
    repetition_penalty: float = 1.0,
    stop: Annotated[list[str] | None, Parameter(consume_multiple=False)] = None,
    seed: int = 0,
) -> None:
    """Continues a prompt with a trained model, as text that streams.

    Example: python -m llm_jax.generate runs/tutorial --prompt "The salesperson" --temperature 0.8 --top_k 40

    Parameters
    ----------
    directory:
        A run directory, or one that `convert import` made.
    prompt:
        Text to continue.
    max_new_tokens:
        Longest continuation, in tokens.
    samples:
        How many continuations; several are drawn together and printed one after the other.
    greedy:
        Always take the likeliest token (the same as --temperature 0).
    temperature:
        Below 1 is safer, above 1 is wilder.
    top_k:
        Keep the k likeliest tokens; 0 keeps all.
    top_p:
        Keep the fewest tokens that together have this probability.
    min_p:
        Keep tokens with at least this share of the likeliest one's probability.
    repetition_penalty:
        Above 1 makes tokens that are already there less likely.
    stop:
        End before this text; may be given several times.
    seed:
        The same seed gives the same text.
    """
    rules = {
        f"max_new_tokens ({max_new_tokens}) must be at least 1": max_new_tokens >= 1,
        f"samples ({samples}) must be at least 1": samples >= 1,
        f"seed ({seed}) must be from 0 to 2**32 - 1": 0 <= seed < 2**32,
    }
    if broken := [rule for rule, holds in rules.items() if not holds]:
        raise UserError("; ".join(broken))
    from llm_jax.data.streaming import StreamDecoder
    from llm_jax.inference.decode import generate_tokens
    from llm_jax.inference.sampling import Sampling
    from llm_jax.inference.text import stream_text
    from llm_jax.trained import load

    sampling = Sampling(
        repetition_penalty=repetition_penalty,
        temperature=0 if greedy else temperature,
        top_k=top_k,
        top_p=top_p,
        min_p=min_p,
    )
    model = load(directory)
    stop = stop or []
    if samples == 1:
        print(prompt, end="", flush=True)
        for piece in model.stream(
            prompt, max_new_tokens=max_new_tokens, sampling=sampling, seed=seed, stop=stop
        ):
            print(piece, end="", flush=True)
        print()
        return
    rows = generate_tokens(
        model.params,
        model.config,
        [model.encode_prompt(prompt)] * samples,
        max_new_tokens=max_new_tokens,
        sampling=sampling,
        seed=seed,
    )
    for number, tokens in enumerate(zip(*rows, strict=True), start=1):
        text = "".join(stream_text(map(int, tokens), StreamDecoder(model.tokenizer), stop))
        print(f"--- sample {number}\n{prompt}{text}")


if __name__ == "__main__":
    command.run(generate)
