"""Labelled texts become rows: each label once, where it is read, whatever shares the row."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_jax.base.errors import UserError
from llm_jax.data.label_batches import Reading, batch_at, planned_rows, row_batch, scoring_batches
from llm_jax.data.packing import pack
from llm_jax.data.store import Marks


@given(st.lists(st.integers(1, 20), max_size=80))
def test_packing_gives_every_text_a_place_and_no_row_too_much(lengths: list[int]) -> None:
    rows = pack(lengths, 20)
    assert sorted(text for row in rows for text in row) == list(range(len(lengths)))
    assert all(sum(lengths[text] for text in row) <= 20 for row in rows)
    least = -(-sum(lengths) // 20)
    assert len(rows) <= max(1, 2 * least)  # at most one row is less than half full


def marked(*texts: str) -> tuple[np.ndarray, Marks]:
    """Tokens 1, 2, 3 ...; a digit is the label of the piece that ends there, a dot any other token."""
    joined = "".join(texts)
    targets = np.array([0 if letter == "." else int(letter) for letter in joined], np.uint32)
    return np.arange(1, len(joined) + 1), Marks(np.cumsum([0, *map(len, texts)]), targets)


def plain(context_length: int, **more: object) -> Reading:
    given = {"start_ids": (), "end_ids": (), "twice": False} | more
    return Reading(context_length, **given)  # type: ignore[arg-type]


def test_a_label_is_told_at_the_last_token_of_its_piece() -> None:
    tokens, marks = marked("..1", ".2.3")
    batch = row_batch(tokens, marks, planned_rows(marks, plain(8)), plain(8))
    np.testing.assert_array_equal(batch.tokens, [[4, 5, 6, 7, 1, 2, 3, 0]])  # the longer text first
    np.testing.assert_array_equal(batch.begins, [[0, 0, 0, 0, 4, 4, 4, 7]])
    np.testing.assert_array_equal(batch.weights, [[0, 1, 0, 1, 0, 0, 1, 0]])
    np.testing.assert_array_equal(batch.targets, [[0, 1, 0, 2, 0, 0, 0, 0]])


def test_start_ids_lookahead_and_a_second_reading_move_labels_along() -> None:
    tokens, marks = marked("1.2")
    reading = plain(9, start_ids=(50,), end_ids=(60,), twice=True)
    batch = row_batch(tokens, marks, planned_rows(marks, reading), reading)
    np.testing.assert_array_equal(batch.tokens, [[50, 1, 2, 3, 1, 2, 3, 60, 0]])
    np.testing.assert_array_equal(batch.weights, [[0, 0, 0, 0, 0, 1, 0, 1, 0]])
    np.testing.assert_array_equal(batch.targets, [[0, 0, 0, 0, 0, 0, 0, 1, 0]])


def test_a_text_that_does_not_fit_is_cut_where_a_piece_ends_and_a_long_piece_keeps_its_label() -> None:
    tokens, marks = marked("1.2..3.......4.1")
    rows = planned_rows(marks, plain(4))
    parts = sorted(part for row in rows for part in row)
    assert [(part.begin, part.end, part.label) for part in parts] == [
        (0, 3, 0),  # not 4: the piece that ends with 3 goes on
        (3, 6, 0),
        (6, 10, 4),  # the beginning of a piece of eight tokens
        (14, 16, 0),
    ]
    batch = row_batch(tokens, marks, rows, plain(4))
    assert sorted(batch.targets[batch.weights > 0] + 1) == sorted([1, 2, 3, 4, 1])


@given(st.lists(st.text("..123", min_size=1, max_size=30), min_size=1, max_size=20), st.integers(3, 12))
def test_every_label_is_told_once(texts: list[str], context_length: int) -> None:
    tokens, marks = marked(*texts)
    told = [
        batch.targets[batch.weights > 0] + 1
        for _, batch in scoring_batches(tokens, marks, plain(context_length, start_ids=(50,)), 3)
    ]
    np.testing.assert_array_equal(np.sort(np.concatenate(told)), np.sort(marks.targets[marks.targets > 0]))


def test_an_epoch_has_every_row_once_and_depends_on_the_seed_alone() -> None:
    tokens, marks = marked(*["...1"] * 12)
    seen = [
        number
        for seed in (0, 1)
        for step in range(4)
        for number in batch_at(tokens, marks, plain(4), batch_size=3, seed=seed, step=step).tokens[:, 0]
    ]
    first, other = seen[:12], seen[12:]
    assert sorted(first) == sorted(other) == list(range(1, 48, 4))
    assert first != other


def test_a_context_without_room_for_a_text_is_refused() -> None:
    with pytest.raises(UserError, match=r"context_length \(2\) must have room for a text's tokens beside 2"):
        _ = plain(2, start_ids=(1,), end_ids=(2,)).room
