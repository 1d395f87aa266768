"""What models that tell labels reach on real data, from random weights or from a model, beside baselines.

python benchmarks/labels.py DATA [--only balanced,folds,english,chinese,entities,words] [--seeds 3]
    [--from DIR] [--set train.steps=300 ...]

DATA is a folder with the files named in `label_baselines.FILES`. `balanced` and `folds` are the spam messages
as `label_baselines.py` divides them; of the treebanks, a fifth is the test split, the same for every seed.
Prints a line per seed, then the mean over seeds with its 95 % interval.
"""

import argparse
import random
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
from label_baselines import FILES, plain_folds, read_messages

import llm_jax
from llm_jax.base import terminal
from llm_jax.config.effects import settle
from llm_jax.config.load import config_from_dict
from llm_jax.evaluation.intervals import mean_estimate
from llm_jax.evaluation.label_baselines import fit_tfidf
from llm_jax.planning.by_labels import fitted_config
from llm_jax.runs.inherited import INHERITED
from llm_jax.runs.label_record import score_and_keep
from llm_jax.runs.train import run

TREEBANKS = {
    "english": (FILES["English"], "upos"),
    "chinese": (FILES["Chinese"], "upos"),
    "entities": (FILES["entities"], "entity"),
    "words": (FILES["Chinese"], "segment"),
}


def balanced(folder: Path, seeds: int, settings: dict[str, Any]) -> Iterator[tuple[float, float]]:
    """All spam and as many other messages, 70 / 10 / 20, duplicates kept: LLMs-from-scratch's protocol."""
    texts, labels = read_messages(folder)
    for seed in range(seeds):
        source = random.Random(seed)
        spam, ham = (np.flatnonzero(labels == label).tolist() for label in (1, 0))
        rows = spam + source.sample(ham, len(spam))
        source.shuffle(rows)
        known = int(0.7 * len(rows)) + int(0.1 * len(rows))
        yield classified(texts, labels, rows[:known], rows[known:], settings | {"train.seed": seed}, 0.125)


def folds(folder: Path, seeds: int, settings: dict[str, Any]) -> Iterator[tuple[float, float]]:
    """Five folds of all messages that differ; a figure a seed, over all rows."""
    texts, labels = read_messages(folder)
    first = {text.strip().lower(): row for row, text in reversed(list(enumerate(texts)))}
    kept = np.array(sorted(first.values()))
    for seed in range(seeds):
        found = []
        for number, held in enumerate(plain_folds(labels[kept], seed)):
            train = np.setdiff1d(np.arange(len(kept)), held)
            own = settings | {"train.seed": 10 * seed + number}
            found.append((len(held), *classified(texts, labels, kept[train], kept[held], own, 0.1)))
        rows, ours, tfidf = np.array(found).T
        yield float(ours @ rows / rows.sum()), float(tfidf @ rows / rows.sum())


def classified(
    texts: list[str], labels: np.ndarray, train: Any, test: Any, settings: dict[str, Any], held: float
) -> tuple[float, float]:
    """Accuracy of ours and of TF-IDF on the same rows."""
    known, asked = [texts[row] for row in train], [texts[row] for row in test]
    model = llm_jax.fit(known, labels[train], settings={"data.validation_fraction": held} | settings)
    tfidf = fit_tfidf(known, labels[train], 2)(asked).argmax(1)
    return model.score(asked, labels[test]), float(np.mean(tfidf == labels[test]))


def tagged(path: Path, field: str, seeds: int, settings: dict[str, Any]) -> Iterator[tuple[float, float]]:
    """The test split's accuracy, or F1 of spans, and that of the better of two n-gram taggers."""
    for seed in range(seeds):
        with tempfile.TemporaryDirectory() as working:
            own = {"data.corpus": str(path), "data.prepared": f"{working}/prepared", "task.name": "tagging"}
            own |= {"task.label_column": field, "task.test_fraction": 0.2, "data.validation_fraction": 0.08}
            own |= {"train.run": f"{working}/run", "train.seed": seed} | settings
            config = config_from_dict(nested(own), "settings", INHERITED)
            given = dict.fromkeys(own, 0)
            config, _ = settle(fitted_config(config, given, report=terminal.say), given, {}, terminal.say)
            run(config, lambda *_: None)
            found = score_and_keep(config.train.run, terminal.say)
            yield headline(found), max(headline(each) for each in found["baselines"].values())


def headline(found: dict[str, Any]) -> float:
    return float(found["spans"]["f1"][0] if "spans" in found else found["accuracy"][0])


def nested(values: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in values.items():
        *sections, last = name.split(".")
        inner = found
        for section in sections:
            inner = inner.setdefault(section, {})
        inner[last] = value
    return found


def value_of(word: str) -> Any:
    for kind in (int, float):
        try:
            return kind(word)
        except ValueError:
            pass
    return {"true": True, "false": False}.get(word, word)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("--only", default="balanced,folds,english,chinese,entities,words")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--from", dest="origin", default="")
    parser.add_argument("--set", nargs="*", default=[], metavar="NAME=VALUE")
    options = parser.parse_args()
    settings = {name: value_of(value) for name, _, value in (each.partition("=") for each in options.set)}
    if options.origin:
        settings["train.init_from"] = options.origin
    for name in options.only.split(","):
        if name in TREEBANKS:
            file, field = TREEBANKS[name]
            rows = tagged(options.data / file, field, options.seeds, settings)
        else:
            rows = {"balanced": balanced, "folds": folds}[name](options.data, options.seeds, settings)
        begin, pairs = time.perf_counter(), []
        for ours, baseline in rows:
            pairs.append((ours, baseline))
            now = time.perf_counter()
            print(f"RESULT {name}: {ours:.4f}, baseline {baseline:.4f}, {now - begin:.0f} s", flush=True)
            begin = now
        ours, baseline = (mean_estimate(np.array(each)) for each in zip(*pairs, strict=True))
        print(f"RESULT {name}, {len(pairs)} seeds: {ours}; baseline {baseline}", flush=True)


if __name__ == "__main__":
    main()
