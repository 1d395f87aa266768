"""Settings that suit a text, beside those of configs/first.toml: tokenizer, batch, steps, dropout, prompt.

The bounds come from the log of experiments. Nothing is tokenized here: the number of tokens is an estimate.
"""

from typing import Any

_VALIDATION = 0.2  # of configs/first.toml
_CONTEXT = 64  # likewise, in tokens
_BYTES_PER_TOKEN = 4.3  # of cl100k_base in English
_BYTES_PER_LETTER = 2  # from here on, on average, a letter is a word or a syllable, as in Chinese
_EPOCHS = 12  # in the handbook's run; more did not pay
_STEPS = (60, 400)  # 400 are about two minutes on two cores
_BATCH = (8, 24)
_TOKENS_PER_SEQUENCE = 1000  # of the text for each sequence of a batch
_FEW_EPOCHS = 4  # up to here repeated text is nearly as good as new text (Muennighoff et al. 2023)
_PROMPT = 20  # characters, at most


def settings_for(text: str) -> tuple[dict[str, dict[str, Any]], str]:
    """Return settings by section, and what is said of them."""
    size = len(text.encode())
    characters = size / len(text) > _BYTES_PER_LETTER
    tokens = (1 - _VALIDATION) * (len(text) if characters else size / _BYTES_PER_TOKEN)
    batch_size = _within(_BATCH, round(tokens / _TOKENS_PER_SEQUENCE / 8) * 8)
    steps = _within(_STEPS, round(_EPOCHS * tokens / (batch_size * _CONTEXT) / 10) * 10)
    epochs = steps * batch_size * _CONTEXT / max(1, tokens)
    data = {"tokenizer": "characters"} if characters else {}
    dropout = {} if epochs > _FEW_EPOCHS else {"dropout": 0.1, "embedding_dropout": 0.0}
    train = {"batch_size": batch_size, "steps": steps, "eval_interval": max(1, steps // 4)}
    train |= {"save_interval": max(1, steps // 4), "prompt": _beginning(text)}
    unit = "characters" if characters else "tokens"
    said = (
        f"{steps} steps of {batch_size} x {_CONTEXT} {unit}, about {epochs:.1f} epochs"
        f" of {size / 1000:,.0f} kB{', split into characters' if characters else ''}"
    )
    return {"data": data, "model": dropout, "train": train}, said


def _within(bounds: tuple[int, int], number: int) -> int:
    return min(max(number, bounds[0]), bounds[1])


def _beginning(text: str) -> str:
    """The first words of a text, for samples to go on from."""
    line = next(line for line in text.splitlines() if line.strip()).strip()[: _PROMPT + 1]
    return line if len(line) <= _PROMPT else (line.rsplit(" ", 1)[0] if " " in line else line[:_PROMPT])
