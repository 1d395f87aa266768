"""Texts whose labels are easy to learn, as people keep them in files."""

import random
from pathlib import Path

import pytest

WORDS = {
    "glad": ["sunny", "bright", "merry", "cheerful", "lovely"],
    "sad": ["gloomy", "bleak", "dreary", "mournful", "grim"],
}


def sentences(count: int) -> list[tuple[str, str]]:
    """(text, label) of texts that differ."""
    drawn = random.Random(0)
    return [
        (
            f"Day {at}: it was {drawn.choice(WORDS[label])} near {drawn.choice(('home', 'town', 'sea'))}.",
            label,
        )
        for at in range(count)
        for label in [drawn.choice(sorted(WORDS))]
    ]


@pytest.fixture(scope="session")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CSV file with quotes, commas and line ends in its fields."""
    path = tmp_path_factory.mktemp("tables") / "days.csv"
    rows = [f'"{text}\n""so"", she said",{label}' for text, label in sentences(160)]
    path.write_text("\n".join(["note,mood", *rows]) + "\n", encoding="utf-8")
    return path


def sentence_lines() -> str:
    """CoNLL-U in which a word's class follows from the word."""
    classes = {"Day": "NOUN", "it": "PRON", "was": "AUX", "near": "ADP", ":": "PUNCT", ".": "PUNCT"}
    blocks = []
    for text, _ in sentences(60):
        words = text.replace(":", " :").replace(".", " .").split()
        lines = [
            f"{at}\t{word}\t_\t{classes.get(word, 'NUM' if word.isdigit() else 'ADJ')}\t_\t_\t_\t_\t_\t_"
            for at, word in enumerate(words, 1)
        ]
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks) + "\n\n"


@pytest.fixture(scope="session")
def treebank(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`sentence_lines` in a file."""
    path = tmp_path_factory.mktemp("treebanks") / "days.conllu"
    path.write_text(sentence_lines(), encoding="utf-8")
    return path
