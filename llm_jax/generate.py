"""Command: `llm-jax generate DIR --prompt "..."`."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from llm_jax.base.errors import DataError
from llm_jax.base.terminal import remark, say_json, write
from llm_jax.cli import command
from llm_jax.config.decoding import DecodingConfig, SamplingConfig
from llm_jax.config.rules import Seed, Step, Whole, require

if TYPE_CHECKING:
    from llm_jax.language_model.model import Generated, LanguageModel


def generate(
    directory: Path,
    /,
    *,
    prompt: tuple[str, ...] = (),
    prompt_file: Path | None = None,
    step: Step = "best",
    max_new_tokens: Whole = 100,
    samples: Whole = 1,
    seed: Seed = 0,
    stop: tuple[str, ...] = (),
    logprobs: bool = False,
    options: Annotated[DecodingConfig, Parameter(name="*")] = DecodingConfig(),
    sampling: Annotated[SamplingConfig, Parameter(name="*")] = SamplingConfig(),
) -> None:
    """Continue a prompt with a trained model, as text that streams.

    It ends at max_new_tokens, at a stop text, or where the model ends it (open models have tokens for that).

    Examples:
      llm-jax generate runs/mine --prompt "The salesperson" --temperature 0.8 --top_k 40 --max_new_tokens 60
      llm-jax generate runs/mine --prompt "The salesperson" --samples 3 --max_new_tokens 30

    Parameters
    ----------
    directory:
        A run directory, or one that `convert import` made.
    prompt:
        Text to continue ("The salesperson" without one). May be given several times: all are continued
        together, and each becomes what it would be alone.
    prompt_file:
        A text file with a prompt on each line, instead of --prompt.
    max_new_tokens:
        Longest continuation, in tokens.
    samples:
        How many continuations of each prompt; all are drawn together and printed one after the other.
    seed:
        The same seed gives the same text.
    stop:
        End before this text; may be given several times.
    logprobs:
        Print a line of JSON for each continuation, with the log-probability (nats) of each token under the
        model's own distribution: before repetition penalty, temperature and filters.
    """
    require(
        {
            f"max_new_tokens ({max_new_tokens}) must be at least 1": max_new_tokens >= 1,
            f"samples ({samples}) must be at least 1": samples >= 1,
            f"seed ({seed}) must be from 0 to 2**32 - 1": 0 <= seed < 2**32,
            "prompts must come from --prompt or from --prompt_file, not from both": not (
                prompt and prompt_file
            ),
            "speculate does not go together with logprobs": not (options.speculate and logprobs),
        }
    )
    prompts = _lines(prompt_file) if prompt_file else list(prompt or ("The salesperson",))
    from llm_jax.language_model.model import load
    from llm_jax.language_model.options import acceptance_line, asked_constraint, asked_speculation

    given: list[int] = []
    speculation = asked_speculation(options, len(prompts) * samples, given.append)
    settings: dict[str, Any] = {"max_new_tokens": max_new_tokens, "sampling": sampling, "seed": seed}
    settings |= {"stop": stop, "constraint": asked_constraint(options)}
    model = load(directory, step=step)
    if logprobs or len(prompts) * samples > 1:
        _print_together(model, prompts, samples, logprobs, settings)
        return
    write(prompts[0])
    for piece in model.stream(prompts[0], speculation=speculation, **settings):
        write(piece)
    write("\n")
    if speculation is not None:
        remark(acceptance_line(given))


def _print_together(
    model: "LanguageModel", prompts: Sequence[str], samples: int, logprobs: bool, settings: Mapping[str, Any]
) -> None:
    rows = [text for text in prompts for _ in range(samples)]
    found = model.generate_many(rows, **settings)
    for number, (text, one) in enumerate(zip(rows, found, strict=True)):
        if logprobs:
            say_json(_scored(model, text, one), ensure_ascii=False)
            continue
        names = [f"prompt {number // samples + 1}"] * (len(prompts) > 1)
        names += [f"sample {number % samples + 1}"] * (samples > 1)
        write(f"--- {', '.join(names)}\n{text}{one.text}\n")


def _lines(path: Path) -> list[str]:
    try:
        lines = path.read_text(encoding="utf-8").removesuffix("\n").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} must be a text file in UTF-8 with a prompt on each line: {error}") from None
    if not all(lines):
        raise DataError(f"{path} must have a prompt on each line, and none of them empty")
    return lines


def _scored(model: "LanguageModel", prompt: str, one: "Generated") -> dict[str, Any]:
    tokens = [
        {"id": token, "text": model.tokenizer.token_bytes(token).decode(errors="replace"), "logprob": score}
        for token, score in zip(one.token_ids, one.log_probs, strict=True)
    ]
    return {"prompt": prompt, "text": one.text, "finish_reason": one.finish_reason, "tokens": tokens}


if __name__ == "__main__":
    command.run(generate)
