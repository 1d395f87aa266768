"""A trained model that tells labels, as a value: of texts, or of the words in them. Legend: P pieces of a
text, C labels.
"""

import dataclasses
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from llm_jax.base.errors import UserError
from llm_jax.base.tree import Tree
from llm_jax.checkpoints.reader import Step
from llm_jax.config.run import Config
from llm_jax.data.factors import Factors, Fields
from llm_jax.data.label_files import SEGMENTS, pieces_of
from llm_jax.data.labelled import encode_pieces
from llm_jax.data.store import Marks
from llm_jax.tasks.by_name import find_task
from llm_jax.tasks.factors import read_fields, words_of
from llm_jax.tasks.labels import tell
from llm_jax.tasks.saved import read_saved
from llm_jax.tokenization.from_dict import tokenizer_from_dict
from llm_jax.tokenization.protocol import Tokenizer

_WORD = re.compile(r"\w+(?:[.,]\d+)*|[^\w\s]")


@dataclasses.dataclass(frozen=True)
class Labeller:
    """A model with its labels. `load_labeller` makes it."""

    config: Config
    params: Tree
    tokenizer: Tokenizer
    labels: tuple[str, ...]
    step: int
    factors: Factors = Factors()  # what is read beside the tokens of words

    @property
    def tags_words(self) -> bool:
        """Whether it tells a label for each word, not one for a text."""
        return self.config.task.name == "tagging"

    def probabilities(
        self, texts: Sequence[Sequence[str]], fields: Sequence[Fields] | None = None
    ) -> list[np.ndarray]:
        """Return the probabilities of labels for each piece of each text, [P, C] float32 each.

        Args:
            texts: each as its pieces, which joined are the text: `[text]` to classify it, and `split` makes
                those of a text whose words are to be tagged. No piece may be empty.
            fields: what is known of each text's pieces, where the model reads such.

        Raises:
            DataError: the model reads a field that is not there.
        """
        if not texts:
            return []
        counts = np.cumsum([len(pieces) for pieces in texts])[:-1]
        if self.factors.each and not self.tags_words:
            texts = [words_of(pieces[0]) for pieces in texts]
        encoded = [encode_pieces(self.tokenizer, pieces) for pieces in texts]
        targets = [np.zeros(len(ids), np.int32) for ids, _ in encoded]
        for target, (_, ends) in zip(targets, encoded, strict=True):
            target[ends if self.tags_words else ends[-1:]] = 1  # whatever the label
        edges = np.append(0, np.cumsum([len(ids) for ids, _ in encoded]))
        told = tell(
            self.params,
            self.config,
            np.concatenate([ids for ids, _ in encoded]),
            Marks(
                edges, np.concatenate(targets), self._factors(texts, fields, [ends for _, ends in encoded])
            ),
            self.tokenizer,
        )
        return np.split(np.exp(told.log_probs), counts)

    def _factors(
        self, texts: Sequence[Sequence[str]], fields: Sequence[Fields] | None, ends: Sequence[np.ndarray]
    ) -> np.ndarray | None:
        """Numbers of what is known of each token's word, [N, S]; None where the model reads none."""
        if not self.factors.each:
            return None
        names, given = [factor.name for factor in self.factors.each], fields or [{}] * len(texts)
        found = [
            self.factors.encode(
                read_fields(names, self.config.task, pieces, known, row), np.diff(last, prepend=-1).tolist()
            )
            for row, (pieces, known, last) in enumerate(zip(texts, given, ends, strict=True), 1)
        ]
        return np.concatenate(found)

    def split(self, text: str) -> list[str]:
        """Return the pieces of a text that get a label each: its words, or its characters where the labels
        say which of them begin a word; or the whole.
        """
        if not self.tags_words:
            return [text] if text.strip() else []
        if self.config.task.label_column == SEGMENTS:
            return [letter for letter in text if not letter.isspace()]
        found = list(_WORD.finditer(text))
        ends = [each.end() for each in found]
        spaces = [at < len(text) and text[at].isspace() for at in ends]
        return pieces_of([each[0] for each in found], spaces)


def load_labeller(directory: Path, step: Step, report: Callable[[str], None]) -> Labeller:
    """Read a model that tells labels from its run directory.

    Raises:
        CheckpointError: there is none, or it is damaged.
        UserError: `step` names none, or the model tells no labels.
    """
    saved = read_saved(directory, step, report)
    if find_task(saved.config.task).writes_text:
        raise UserError(
            f"{directory} must hold a model that tells labels, as `llm-jax fit` trains it; its task is "
            f"{saved.config.task.name}: llm-jax generate {directory} continues texts"
        )
    tokenizer, labels = tokenizer_from_dict(saved.about["tokenizer"]), tuple(saved.about["labels"])
    factors = Factors.from_list(saved.about.get("factors", ()))
    return Labeller(saved.config, saved.params, tokenizer, labels, saved.about["step"], factors)


def segmented(pieces: Sequence[str], begins: Sequence[bool]) -> Iterator[str]:
    """Yield the words that characters make, of which some begin one."""
    word = ""
    for piece, begin in zip(pieces, begins, strict=True):
        if begin and word:
            yield word
            word = ""
        word += piece
    if word:
        yield word
