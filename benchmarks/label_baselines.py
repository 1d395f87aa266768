"""What the baselines of labelled tasks reach: figures that a model of the same rows has to beat.

python benchmarks/label_baselines.py DATA [--only sms,balanced,pos,entities,words]

DATA is a folder with the files named in `FILES`. Prints a line per figure: its value and 95 % interval over
rows or sentences. Treebanks are divided once, 80 % of their sentences to training, by `split_rows`.
"""

import argparse
import random
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np

from llm_jax.data.grouped_splits import split_folds, split_rows
from llm_jax.evaluation.intervals import mean_estimate
from llm_jax.evaluation.label_baselines import fit_majority, fit_tfidf
from llm_jax.evaluation.labels import score_labels
from llm_jax.evaluation.spans import score_segmentation, score_tags
from llm_jax.evaluation.tag_baselines import Tagger, fit_bigram_tagger, fit_unigram_tagger

FILES = {
    "sms": "sms_spam_collection.tsv",
    "English": "ud_english_ewt_dev.conllu",
    "Chinese": "ud_chinese_gsdsimp_dev.conllu",
    "entities": "uner_english_ewt_dev.iob2",
}
TAGGERS = {"unigram": fit_unigram_tagger, "bigram": fit_bigram_tagger}
SEEDS = 10


def read_messages(folder: Path) -> tuple[list[str], np.ndarray]:
    """Messages and whether each is spam."""
    lines = (folder / FILES["sms"]).read_text(encoding="utf-8-sig").split("\n")
    rows = [line.split("\t", 1) for line in lines if "\t" in line]
    return [text for _, text in rows], np.array([label == "spam" for label, _ in rows], np.int64)


def read_columns(path: Path, column: int) -> tuple[list[list[str]], list[list[str]]]:
    """Words of each sentence and their column; lines of several words or of none have no whole number."""
    words, tags = [], []
    for block in path.read_text(encoding="utf-8").split("\n\n"):
        cells = [line.split("\t") for line in block.split("\n") if line and line[0] != "#"]
        cells = [cell for cell in cells if cell[0].isdigit()]
        if cells:
            words.append([cell[1] for cell in cells])
            tags.append([cell[column] for cell in cells])
    return words, tags


def measure_sms(folder: Path, rows: int, fit: Callable = fit_tfidf) -> None:
    """Five folds of all messages that differ: of rows as published, and of groups of near duplicates."""
    texts, labels = read_messages(folder)
    first = {text.strip().lower(): row for row, text in reversed(list(enumerate(texts)))}
    kept = sorted(first.values())
    texts, labels = [texts[row] for row in kept], labels[kept]
    names = ["spam" if label else "ham" for label in labels]
    for seed in range(rows):
        for name, folds in (
            ("rows", plain_folds(labels, seed)),
            ("groups", split_folds(texts, names, 5, seed).held_out),
        ):
            probabilities = np.zeros((len(labels), 2))
            for held in folds:
                train = np.setdiff1d(np.arange(len(labels)), held)
                predict = fit([texts[row] for row in train], labels[train], 2)
                probabilities[held] = predict([texts[row] for row in held])
            show(f"sms, {len(labels):,} rows, 5 folds of {name}, seed {seed}", labels, probabilities)
    show("sms, majority", labels, fit_majority(labels, 2)(texts))


def plain_folds(labels: np.ndarray, seed: int) -> list[np.ndarray]:
    """Stratified folds of rows."""
    order = np.random.default_rng(seed).permutation(len(labels))
    order = order[np.argsort(labels[order], kind="stable")]
    return [np.sort(order[fold::5]) for fold in range(5)]


def measure_balanced(folder: Path) -> None:
    """All spam and as many other messages, 70 / 10 / 20, duplicates kept: LLMs-from-scratch's protocol."""
    texts, labels = read_messages(folder)
    accuracies = []
    for seed in range(SEEDS):
        source = random.Random(seed)
        spam, ham = (np.flatnonzero(labels == label).tolist() for label in (1, 0))
        rows = spam + source.sample(ham, len(spam))
        source.shuffle(rows)
        train, test = rows[: int(0.7 * len(rows))], rows[int(0.7 * len(rows)) + int(0.1 * len(rows)) :]
        predict = fit_tfidf([texts[row] for row in train], labels[train], 2)
        found = score_labels(labels[test], predict([texts[row] for row in test]))
        accuracies.append(found.accuracy.value)
    print(
        f"sms, {len(rows):,} balanced rows, test {len(test)}: accuracy {mean_estimate(np.array(accuracies))}"
    )
    print("   each seed:", *(f"{accuracy:.4f}" for accuracy in accuracies))


def show(name: str, true: np.ndarray, probabilities: np.ndarray, groups: np.ndarray | None = None) -> None:
    found = score_labels(true, probabilities, groups)
    print(
        f"{name}: accuracy {found.accuracy}, macro F1 {found.macro_f1}, log loss {found.log_loss.value:.4f}",
        flush=True,
    )


def divide(sentences: list[list[str]]) -> tuple[list[int], list[int]]:
    """Sentences of training and test; one that is in the file twice is on one side."""
    split = split_rows([" ".join(words) for words in sentences], ["all"] * len(sentences), (0.8, 0, 0.2))
    print(f"   {split.report}; training {len(split.train)}, test {len(split.test)} sentences")
    return split.train.tolist(), split.test.tolist()


def fitted(
    sentences: list[list[str]], tags: list[list[str]], train: Sequence[int], fit: Callable[..., Tagger]
) -> tuple[Tagger, list[str]]:
    names = sorted({tag for own in tags for tag in own})
    ids = [[names.index(tag) for tag in tags[row]] for row in train]
    return fit([sentences[row] for row in train], ids, len(names)), names


def measure_pos(folder: Path) -> None:
    """Universal parts of speech, gold words."""
    for language in ("English", "Chinese"):
        sentences, tags = read_columns(folder / FILES[language], 3)
        train, test = divide(sentences)
        groups = np.repeat(np.arange(len(test)), [len(tags[row]) for row in test])
        for name, fit in TAGGERS.items():
            tagger, names = fitted(sentences, tags, train, fit)
            true = np.array([names.index(tag) for row in test for tag in tags[row]])
            found = np.concatenate(tagger([sentences[row] for row in test]))
            show(f"{language} parts of speech, {name}", true, found, groups)
        known = np.concatenate([[names.index(tag) for tag in tags[row]] for row in train])
        show(
            f"{language} parts of speech, majority",
            true,
            fit_majority(known, len(names))([""] * len(true)),
            groups,
        )


def measure_entities(folder: Path) -> None:
    """Strict F1 of spans."""
    sentences, tags = read_columns(folder / FILES["entities"], 2)
    train, test = divide(sentences)
    for name, fit in TAGGERS.items():
        tagger, names = fitted(sentences, tags, train, fit)
        found = [[names[tag] for tag in each.argmax(1)] for each in tagger([sentences[row] for row in test])]
        scores = score_tags([tags[row] for row in test], found)
        types = ", ".join(f"{type_} {score.f1.value:.3f}" for type_, score in scores.types.items())
        overall = scores.overall
        print(f"entities, {name}: F1 {overall.f1} of {overall.support} spans; {types}", flush=True)


def measure_words(folder: Path) -> None:
    """Chinese segmentation: a library's, and characters that begin a word or go on with it."""
    import rjieba

    sentences, _ = read_columns(folder / FILES["Chinese"], 3)
    train, test = divide(sentences)
    texts = ["".join(words) for words in sentences]
    begins = [
        ["B" if place == 0 else "I" for word in words for place in range(len(word))] for words in sentences
    ]
    true = [sentences[row] for row in test]
    for hmm in (True, False):
        found = score_segmentation(true, [rjieba.cut(texts[row], hmm) for row in test])
        print(f"words, rjieba, hmm={hmm}: F1 {found.f1}, precision {found.precision}, recall {found.recall}")
    for name, fit in TAGGERS.items():
        tagger, names = fitted([list(text) for text in texts], begins, train, fit)
        cut = []
        for row, each in zip(test, tagger([list(texts[row]) for row in test]), strict=True):
            starts = [
                0,
                *(np.flatnonzero(each.argmax(1)[1:] == names.index("B")) + 1).tolist(),
                len(texts[row]),
            ]
            cut.append([texts[row][begin:end] for begin, end in zip(starts, starts[1:], strict=False)])
        found = score_segmentation(true, cut)
        print(
            f"words, {name} of characters: F1 {found.f1}, precision {found.precision}, recall {found.recall}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("--only", default="words,entities,pos,balanced,sms")
    parser.add_argument("--sms_seeds", type=int, default=1, help="divisions of all messages into five folds")
    options = parser.parse_args()
    measures = {
        "sms": lambda folder: measure_sms(folder, options.sms_seeds),
        "balanced": measure_balanced,
        "pos": measure_pos,
        "entities": measure_entities,
        "words": measure_words,
    }
    for name in options.only.split(","):
        begin = time.perf_counter()
        measures[name](options.data)
        print(f"   {name}: {time.perf_counter() - begin:.0f} s", flush=True)


if __name__ == "__main__":
    main()
