"""Labelled texts in three splits, each label in each, and copies of a text in one."""

from collections.abc import Callable, Sequence

import numpy as np

from llm_jax.base.errors import DataError
from llm_jax.data.labelled import Example

SPLITS = ("train", "validation", "test")


def split_examples(
    examples: Sequence[Example],
    validation_fraction: float,
    test_fraction: float,
    seed: int,
    report: Callable[[str], None],
) -> dict[str, list[Example]]:
    """Return examples by split; each label has its share of each, but those with few texts stay in training.

    Copies of a text, which differ in case and blanks at most, are one: all but the first are left out.

    Args:
        examples: in the file's order.
        validation_fraction: of each label's texts.
        test_fraction: likewise.
        seed: origin of the order in which they are dealt out.
        report: gets a line on copies.

    Raises:
        DataError: a split would be empty.
    """
    unlike: dict[str, Example] = {}
    for each in examples:
        unlike.setdefault(" ".join(each.text.casefold().split()), each)
    if copies := len(examples) - len(unlike):
        report(f"left out {copies:,} texts that are there before, so that no split knows another's")
    kept = list(unlike.values())
    of_label: dict[str, list[int]] = {}
    for number, each in enumerate(kept):
        # Of a sentence of many labels the first word's would say nothing: they are dealt out together.
        of_label.setdefault(each.labels[0] if len(each.labels) == 1 else "", []).append(number)
    found: dict[str, list[int]] = {name: [] for name in SPLITS}
    for label in sorted(of_label):
        numbers = np.array(of_label[label])[np.random.default_rng(seed).permutation(len(of_label[label]))]
        test = int(len(numbers) * test_fraction)
        held = test + int(len(numbers) * validation_fraction)
        for name, part in zip(SPLITS, (numbers[held:], numbers[test:held], numbers[:test]), strict=True):
            found[name] += part.tolist()
    for name, numbers in found.items():
        if not numbers:
            raise DataError(
                f"the {name} split must have at least 1 text, got none of {len(kept):,}; more texts, or "
                "larger data.validation_fraction and task.test_fraction are needed"
            )
    return {name: [kept[number] for number in sorted(numbers)] for name, numbers in found.items()}
