"""Door: `python -m llm_jax.generate DIR --prompt "..."`."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from llm_jax import command
from llm_jax.config import SamplingConfig
from llm_jax.errors import UserError


def generate(
    directory: Path,
    /,
    *,
    prompt: str = "The salesperson",
    max_new_tokens: int = 100,
    samples: int = 1,
    seed: int = 0,
    stop: tuple[str, ...] = (),
    sampling: Annotated[SamplingConfig, Parameter(name="*")] = SamplingConfig(),
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
    seed:
        The same seed gives the same text.
    stop:
        End before this text; may be given several times.
    """
    rules = {
        f"max_new_tokens ({max_new_tokens}) must be at least 1": max_new_tokens >= 1,
        f"samples ({samples}) must be at least 1": samples >= 1,
        f"seed ({seed}) must be from 0 to 2**32 - 1": 0 <= seed < 2**32,
    }
    if broken := [rule for rule, holds in rules.items() if not holds]:
        raise UserError("; ".join(broken))
    from llm_jax.trained import load

    model = load(directory)
    if samples > 1:
        texts = model.generate_samples(
            prompt, samples, max_new_tokens=max_new_tokens, sampling=sampling, seed=seed, stop=stop
        )
        for number, text in enumerate(texts, start=1):
            print(f"--- sample {number}\n{prompt}{text}")
        return
    print(prompt, end="", flush=True)
    for piece in model.stream(prompt, max_new_tokens=max_new_tokens, sampling=sampling, seed=seed, stop=stop):
        print(piece, end="", flush=True)
    print()


if __name__ == "__main__":
    command.run(generate)
