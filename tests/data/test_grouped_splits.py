"""Splits that do not leak: duplicates on one side, each label divided, whatever the order of the rows."""

import random
from collections import Counter

import numpy as np
import pytest

from llm_jax.base.errors import DataError, UserError
from llm_jax.data.grouped_splits import split_folds, split_rows
from llm_jax.data.near_duplicates import _is_similar, group_duplicates, normalise
from tests.support.shared_data import SharedData

WORDS = [
    word
    for line in (
        "the a of to and cat dog house tree river",
        "sings runs sleeps quickly old new red blue green slowly",
    )
    for word in line.split()
]


def random_texts(rows: int, words: int = 12, seed: int = 0) -> list[str]:
    source = random.Random(seed)
    return [" ".join(source.choices(WORDS, k=words)) for _ in range(rows)]


def same_group(first: str, second: str) -> bool:
    one, two = group_duplicates([first, second, "something else entirely"]).group_N[:2]
    return bool(one == two)


LONG = "Congratulations, you have won a prize of 500 pounds! Call 09061701461 before Friday to claim it."


@pytest.mark.parametrize(
    ("first", "second", "together"),
    [
        ("Call me now", "call  ME\tnow ", True),
        ("Call me now", "Call me, now!!", True),
        ("Your code is 1234", "Your code is 98", True),
        (LONG, LONG.replace("Friday", "Sunday"), True),
        (LONG, "Hello! " + LONG, True),
        (
            "今天天气很好，我们去公园散步吧，然后一起吃晚饭。",
            "今天天气很好,我们去公园散步吧,然后一起吃晚饭!",
            True,
        ),
        (LONG, LONG[::-1], False),
        ("ok", "ok lar", False),
        ("12 + 34", "56 + 78", False),
        ("!!!", "???", False),
        ("", "...", False),
        ("", " ", True),
    ],
)
def test_which_texts_are_duplicates(first: str, second: str, together: bool) -> None:
    assert same_group(first, second) == together


def test_groups_are_those_of_comparing_all_with_all() -> None:
    texts = random_texts(60)
    source = random.Random(1)
    for text in texts[:40]:  # copies with a word or four changed, near and less near
        words = text.split()
        for place in source.sample(range(len(words)), source.choice([1, 1, 2, 4])):
            words[place] = source.choice(WORDS)
        texts.append(" ".join(words))
    sets = [frozenset(text[i : i + 5] for i in range(len(text) - 4)) for text in map(normalise, texts)]
    group = list(range(len(texts)))
    for first in range(len(texts)):
        for second in range(first):
            if _is_similar(sets[first], sets[second]):
                old, new = group[first], group[second]
                group = [new if each == old else each for each in group]
    found = group_duplicates(texts).group_N.tolist()
    assert len(set(found)) == len(set(group)) == len(set(zip(found, group, strict=True)))
    assert 60 < len(set(found)) < 100


def test_duplicates_are_counted() -> None:
    found = group_duplicates([LONG, LONG.lower(), LONG.replace("500", "700"), "other", "Other!"])
    assert (found.exact, found.near) == (1, 2)
    assert len(set(found.group_N.tolist())) == 2


def test_texts_of_one_template_are_joined_only_where_they_are_equal() -> None:
    texts = [f"sepal length in centimetres: {i}, sepal width in centimetres: 3" for i in range(50)]
    found = group_duplicates([*texts, texts[0]])
    assert found.is_template
    assert len(set(found.group_N.tolist())) == 50
    assert "only exact duplicates kept on one side" in str(split_rows(texts, ["a", "b"] * 25).report)


def test_no_group_is_divided_and_each_label_is() -> None:
    texts = random_texts(400)
    texts += [f"{text} {end}" for text in texts[:100] for end in ("!", "?")]
    labels = ["spam" if i % 5 == 0 else "ham" for i in range(400)]
    labels += [labels[i] for i in range(100) for _ in range(2)]
    labels[400] = "ham"
    split = split_rows(texts, labels, (0.7, 0.1, 0.2), seed=3)
    group = group_duplicates(texts).group_N
    parts = (split.train, split.validation, split.test)
    assert sorted(np.concatenate(parts).tolist()) == list(range(600))
    assert sum(len(set(group[part].tolist())) for part in parts) == len(set(group.tolist()))
    for part, share in zip(parts, (0.7, 0.1, 0.2), strict=True):
        assert len(part) == pytest.approx(600 * share, abs=4)
        assert np.mean([labels[row] == "spam" for row in part]) == pytest.approx(0.2, abs=0.03)
    assert split.report.groups == 100
    assert split.report.largest == 3
    assert split.report.conflicting == 1


def test_a_split_does_not_depend_on_the_order_but_on_the_seed() -> None:
    texts = random_texts(200)
    texts += [text.upper() for text in texts[:30]]
    labels = [WORDS[i % 3] for i in range(230)]
    order = random.Random(0).sample(range(230), 230)
    shuffled = split_rows([texts[i] for i in order], [labels[i] for i in order])
    plain, again, other = (
        split_rows(texts, labels),
        split_rows(texts, labels),
        split_rows(texts, labels, seed=1),
    )
    assert sorted(order[i] for i in shuffled.test) == plain.test.tolist() == again.test.tolist()
    assert shuffled.report == plain.report
    assert plain.test.tolist() != other.test.tolist()


def test_a_label_with_one_example_is_trained_and_named() -> None:
    texts, labels = random_texts(50), ["a"] * 47 + ["rare", "twice", "twice"]
    split = split_rows(texts, labels, (0.5, 0, 0.5))
    assert split.report.alone == ("rare",)
    assert 47 in split.train
    assert {48, 49} & set(split.train.tolist())
    assert len(split.validation) == 0
    assert "in training only, for want of a second example: rare" in str(split.report)


def test_a_thousand_labels_of_four_rows_keep_the_fractions() -> None:
    texts = random_texts(4000)
    split = split_rows(texts, [str(i % 1000) for i in range(4000)])
    assert [len(part) for part in split[:3]] == [3200, 400, 400]
    assert len({row % 1000 for row in split.train}) == 1000


def test_each_label_of_two_rows_or_more_is_trained() -> None:
    texts = random_texts(120)
    split = split_rows(
        [*texts, *texts[:30]],
        [str(i % 60) for i in range(120)] + [str(i) for i in range(30)],
        (0.2, 0.4, 0.4),
    )
    assert {row % 60 if row < 120 else row - 120 for row in split.train} == set(range(60))


def test_a_part_that_is_not_wanted_stays_empty_whatever_groups_overshoot() -> None:
    texts = [text for text in random_texts(40) for _ in range(3)]
    split = split_rows(texts, [str(i // 3 % 8) for i in range(120)], (0.45, 0, 0.55))
    assert [len(part) for part in split[:3]] == [len(split.train), 0, 120 - len(split.train)]
    assert 45 <= len(split.train) <= 66


def test_rows_with_several_labels_are_divided_by_the_rarest() -> None:
    labels = [("all", "few") if i % 10 == 0 else ("all",) if i % 10 < 8 else () for i in range(300)]
    split = split_rows(random_texts(300), labels, (0.5, 0.2, 0.3))
    counts = [Counter(labels[row] for row in part)[("all", "few")] for part in split[:3]]
    assert counts == [15, 6, 9]


def test_folds_hold_out_each_row_once_and_no_group_in_two() -> None:
    texts = random_texts(100)
    texts += [f"{text}." for text in texts[:20]]
    labels = [WORDS[i % 2] for i in range(119)] + ["rare"]
    texts[119] = "a text with no likeness to any other one here"
    folds = split_folds(texts, labels, 5)
    assert sorted(np.concatenate(folds.held_out).tolist()) == list(range(119))
    group = group_duplicates(texts).group_N
    assert sum(len(set(group[held].tolist())) for held in folds.held_out) == len(set(group[:119].tolist()))
    assert max(map(len, folds.held_out)) - min(map(len, folds.held_out)) <= 4
    assert folds.report.alone == ("rare",)


def test_what_cannot_be_divided_is_refused() -> None:
    with pytest.raises(UserError, match="must sum to 1"):
        split_rows(["a"], ["b"], (0.5, 0.1, 0.1))
    with pytest.raises(DataError, match="0 rows and 0 labels"):
        split_rows([], [])
    with pytest.raises(DataError, match="1 rows and 2 labels"):
        split_rows(["a"], ["b", "c"])
    with pytest.raises(UserError, match="folds must be 2 or more, got 1"):
        split_folds(["a"], ["b"], 1)


def test_the_sms_file_has_415_duplicates(shared_data: SharedData) -> None:
    lines = (shared_data / "sms_spam_collection.tsv").read_text(encoding="utf-8-sig").split("\n")
    texts = [line.split("\t", 1)[1] for line in lines if "\t" in line]
    found = group_duplicates(texts)
    assert (len(texts), found.exact) == (5574, 415)
    assert found.near > 100
