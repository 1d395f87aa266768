"""Command: `llm-jax predict DIR --text "..."`."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from llm_jax.base.terminal import remark, say, say_json, wants_json
from llm_jax.cli import command
from llm_jax.config.rules import Step, Whole, require

if TYPE_CHECKING:
    import numpy as np

    from llm_jax.tasks.labeller import Labeller

_ROWS = 256  # of a file, told at once
# The pieces of a text, none of an empty one, and what a file says of each.
Text = tuple[list[str], Mapping[str, Sequence[str]]]


def predict(
    directory: Path,
    /,
    *,
    text: tuple[str, ...] = (),
    file: Path | None = None,
    top: Whole = 3,
    step: Step = "best",
) -> None:
    """Tell the labels of texts, or of their words, by a model that `fit` has trained.

    Of each text the likeliest labels with their probabilities; of words the likeliest label of each. With
    --json, or into a pipe, a line of JSON for each text. A file may be of any size.

    Examples:
      llm-jax predict runs/messages --text "Free entry: text WIN to 80086"
      llm-jax predict runs/messages --file messages.csv --json

    Parameters
    ----------
    directory:
        A run directory of `fit`.
    text:
        A text; may be given several times.
    file:
        A text file with a text on each line, or a table (.csv, .tsv, .jsonl, .parquet) whose column of texts
        is called as in training.
    top:
        How many labels of a text are shown.
    """
    require(
        {
            "what to tell labels of must be given, with --text or with --file": bool(text) != bool(file),
            f"top ({top}) must be at least 1": top >= 1,
        }
    )
    from llm_jax.tasks.labeller import load_labeller

    model = load_labeller(directory, step, remark)
    given = _texts(model, file) if file else ((model.split(each), {}) for each in text)
    for texts in _in_parts(given):
        full = [each for each in texts if each[0]]
        told = iter(model.probabilities([pieces for pieces, _ in full], [fields for _, fields in full]))
        for pieces, _ in texts:
            _show(model, pieces, next(told) if pieces else None, top)


def _texts(model: "Labeller", file: Path) -> Iterator[Text]:
    """The texts of a file."""
    from llm_jax.data import label_files
    from llm_jax.data.rows import text_lines
    from llm_jax.data.tables import read_chunks
    from llm_jax.data.text_files import kind_of
    from llm_jax.data.treebanks import holds_sentences, iterate_sentences

    config = model.config
    if model.tags_words and holds_sentences(file):
        for number, sentence in enumerate(iterate_sentences(file), 1):
            example = label_files.sentence_example(sentence, number, config.task.label_column)
            yield list(example.pieces), example.fields
    elif kind_of(file) in ("", "text"):
        yield from ((model.split(line), {}) for line in text_lines(file, config.data.errors))
    else:
        for table in read_chunks(file, _ROWS, label_files.table_form(config.data)):
            columns = label_files.known_columns(table, config.data.text_column, config.task.label_column)
            for row in range(table.num_rows):
                yield model.split(label_files.row_text(table, columns, row)), {}


def _in_parts(texts: Iterable[Text]) -> Iterator[list[Text]]:
    rest = iter(texts)
    while part := list(islice(rest, _ROWS)):
        yield part


def _show(model: "Labeller", pieces: list[str], told: "np.ndarray | None", top: int) -> None:
    """A text's labels: for a person, or as a line of JSON; none of an empty one."""
    from llm_jax.data.label_files import SEGMENTS
    from llm_jax.tasks.labeller import segmented

    labels, record = model.labels, {"text": "".join(pieces)}
    if told is None:
        line, record = "", record | {"label": None}
    elif not model.tags_words:
        order = (-told[0]).argsort(kind="stable")
        shares = {labels[number]: round(float(told[0, number]), 6) for number in order}
        line = ", ".join(f"{label} {share:.1%}" for label, share in list(shares.items())[:top])
        record |= {"label": labels[order[0]], "probabilities": shares}
    elif model.config.task.label_column == SEGMENTS:
        words = list(segmented(pieces, [labels[number] == "B" for number in told.argmax(axis=1)]))
        line, record = " / ".join(words), record | {"words": words}
    else:
        words, tags = [piece.strip() for piece in pieces], [labels[number] for number in told.argmax(axis=1)]
        line = " ".join(f"{word}/{tag}" for word, tag in zip(words, tags, strict=True))
        record |= {
            "words": words,
            "labels": tags,
            "probabilities": [round(float(p), 6) for p in told.max(axis=1)],
        }
    if wants_json():
        say_json(record, ensure_ascii=False)
    else:
        say(f"{line}  |  {record['text']}" if model.tags_words is False else line)


if __name__ == "__main__":
    command.run(predict)
