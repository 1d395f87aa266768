"""Curves draw the numbers that they are given, and nothing covers another."""

import numpy as np
import pytest

from llm_jax.display.words import read_words
from llm_jax.reports.curves import GRADIENT, curve, loss_picture, norms_by_layer, smooth

pytestmark = pytest.mark.compiles

WORDS = read_words("reports", "en")


def test_curves_draw_the_numbers_that_they_are_given() -> None:
    entries = [
        {"step": 10 * n, "grad_norm": 1.5**n, "grad_norms": {"head": 2.0**n, "blocks": [1.0, 3.0]}}
        for n in range(1, 9)
    ]
    picture = curve(GRADIENT, {"run": entries}, WORDS)
    assert picture is not None
    (axes,) = picture.figure.axes
    np.testing.assert_array_equal(axes.lines[0].get_xydata(), [(10 * n, 1.5**n) for n in range(1, 9)])
    assert axes.get_yscale() == "log"
    heat = norms_by_layer(entries, "grad_norms", WORDS)
    assert heat is not None
    (image,) = heat.figure.axes[0].images
    np.testing.assert_array_equal(image.get_array(), [[1.0] * 8, [3.0] * 8, [2.0**n for n in range(1, 9)]])
    labels = [label.get_text() for label in heat.figure.axes[0].get_yticklabels()]
    assert labels == ["block 1", "block 2", "head"]


def test_a_baseline_far_away_stands_in_the_caption_and_does_not_squash_the_curves() -> None:
    entries = [{"step": n, "train_loss": 3 - 0.1 * n, "validation_loss": 3 - 0.1 * n} for n in range(10)]
    picture = loss_picture(entries, {"uniform": 11.5, "bigram": 2.5}, WORDS)
    assert picture is not None
    (axes,) = picture.figure.axes
    assert axes.get_ylim()[1] < 3.5
    texts = [text.get_text() for text in axes.texts]
    assert "bigram 2.500" in texts
    assert not any("uniform" in text for text in texts)
    assert "uniform 11.500" in picture.caption


def test_labels_beside_a_curve_do_not_touch() -> None:
    entries = [{"step": n, "train_loss": 3 - 0.1 * n, "validation_loss": 3 - 0.1 * n} for n in range(10)]
    near = {name: 2.1 + at / 1000 for at, name in enumerate(("one", "two", "three", "four"))}
    picture = loss_picture(entries, near, WORDS)
    assert picture is not None
    picture.figure.draw_without_rendering()
    # Annotations have their arrows in their own extent: a label's place is that of its text.
    heights = sorted(text.get_position()[1] for text in picture.figure.axes[0].texts)
    axes_height = picture.figure.axes[0].bbox.height * 72 / picture.figure.dpi
    assert len(heights) == 6
    assert min(np.diff(heights)) * axes_height > 8  # points, the size of the letters
    assert 0 <= heights[0] <= heights[-1] <= 1


def test_a_running_mean_is_the_mean_of_what_there_is() -> None:
    values = np.array([4.0, 2.0, 6.0, 8.0])
    np.testing.assert_allclose(smooth(values, 3), [4, 3, 4, 16 / 3])
    np.testing.assert_array_equal(smooth(values, 1), values)
