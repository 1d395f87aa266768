"""The windows in which texts are scored, with as many tokens before each target as fit.

Legend: B batch, N tokens, L tokens of the text that a row reads or predicts.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from llm_jax.base.batch import Batch, Prompted, Rows, Window
from llm_jax.base.buckets import power_of_two
from llm_jax.base.errors import DataError
from llm_jax.data.batches import row_length, text_batch

_NARROWEST = 16  # tokens of a window to score; each width is compiled, and narrower ones would save no time


class Windowing(NamedTuple):
    """How texts are cut into windows."""

    context_length: int  # most tokens of a row
    stride: int  # tokens between windows of one text, from 1 to context_length
    batch_tokens: int = 4096  # most tokens of a batch of more than one row
    start_ids: Sequence[int] = ()  # stand before every window


def scoring_rows(texts: Sequence[Prompted], windowing: Windowing) -> list[Rows]:
    """Plan batches that score every token of each text but those that are given, for `scoring_batch` to cut.

    The windows of a text longer than the context begin `stride` tokens apart (side by side where that is
    more than a row has). Each scores what the ones before it did not, so that all but the first window's
    targets have context_length - stride tokens before them. What is given loses its beginning where it
    and the text do not fit: what stays lets the text fit after it, and is at least what each later window
    has. Texts of about the same length share batches, whose numbers of rows and tokens are powers of two
    (or the context's), the widest first. A text's windows keep their order.

    Args:
        texts: in any order.
        windowing: how they are cut.

    Raises:
        DataError: a text has no token to score, or the first of all is one and nothing stands before it.
    """
    context_length, stride, batch_tokens, start_ids = windowing
    length, least = row_length(context_length, start_ids), 0 if start_ids else 1
    stride = min(stride, length - least)
    by_width: dict[int, list[Window]] = {}
    for number, text in enumerate(texts):
        if len(text.tokens) <= text.given or text.given < least:
            raise DataError(
                f"a text to score must have a token before it and at least one of its own; got "
                f"{text.given} before, and {len(text.tokens) - text.given}"
            )
        begin = max(0, text.given - length + min(stride, len(text.tokens) - text.given))
        needed = len(text.tokens) - begin + len(start_ids) - 1
        width = min(context_length, max(_NARROWEST, power_of_two(needed)))
        by_width.setdefault(width, []).extend(_windows(number, text, begin, length, stride))
    found = []
    for width, windows in sorted(by_width.items(), reverse=True):
        most = 1 << max(0, (batch_tokens // width).bit_length() - 1)
        size = min(most, power_of_two(len(windows)))
        found += [Rows(windows[at : at + size], width, size) for at in range(0, len(windows), size)]
    return found


def scoring_batch(texts: Sequence[Prompted], rows: Rows, start_ids: Sequence[int] = ()) -> Batch:
    """Return the batch of some windows of `scoring_rows`, whose weights are 1 where a token is to be
    scored.
    """
    length = rows.width + 1 - len(start_ids)
    text_BL = np.zeros((rows.size, length), np.int32)
    scored_BL = np.zeros((rows.size, length), np.float32)
    for row, (number, begin, first, last) in enumerate(rows.windows):
        text_BL[row, : last - begin] = texts[number].tokens[begin:last]
        scored_BL[row, first - begin : last - begin] = 1
    return text_batch(text_BL, scored_BL, start_ids)


def _windows(number: int, text: Prompted, begin: int, length: int, stride: int) -> Iterator[Window]:
    first = text.given
    while first < len(text.tokens):
        last = min(len(text.tokens), begin + length)
        yield Window(number, begin, first, last)
        begin, first = begin + stride, last
