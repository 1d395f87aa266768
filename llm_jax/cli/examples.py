"""The first rows of a labelled run as the model reads them, in colour: `fit --show_examples N`."""

from rich.text import Text

from llm_jax.base.terminal import console
from llm_jax.display.tokens import token_text, visible
from llm_jax.runs.data import Materials


def show_rows(material: Materials, count: int) -> None:
    """Print rows of the first batch: each token, and after those where a label is told the label and its
    weight in the loss.
    """
    store, batch, shown = material.store, material.batch_at(0), console()
    for row in range(min(count, len(batch.tokens))):
        text = Text(f"row {row}: ", "bold")
        for at, token in enumerate(batch.tokens[row]):
            weight, begin = float(batch.weights[row, at]), int(batch.begins[row, at])
            if begin == at and at and not batch.weights[row, at:].any():
                break  # only padding follows
            if begin == at and at:
                text.append(" | ", "dim")
            piece = visible(token_text(store.tokenizer.token_bytes(int(token))))
            text.append(piece, "bold" if weight else "dim")
            if weight:
                text.append(f"[{store.labels[batch.targets[row, at]]} {weight:g}]", "green")
        shown.print(text)
