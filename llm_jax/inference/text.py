"""From a stream of token ids to a stream of text: whole characters only, until a stop string or end token."""

from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Protocol


class Decoder(Protocol):
    """Turns ids into text piece by piece and never ends a piece inside a character."""

    def push(self, token: int) -> str: ...

    def finish(self) -> str: ...


class StopStrings:
    """Passes text on until a stop string begins; holds back what may still become one."""

    def __init__(self, stop: Sequence[str]):
        self._stop = [text for text in stop if text]
        self._held = ""
        self.stopped = False

    def push(self, text: str) -> str:
        """Return the part of all text so far that is certain to come before any stop string, and was not
        passed on yet.
        """
        if self.stopped:
            return ""
        self._held += text
        found = [at for stop in self._stop if (at := self._held.find(stop)) >= 0]
        if found:
            self.stopped = True
            passed, self._held = self._held[: min(found)], ""
            return passed
        keep = max((self._overlap(stop) for stop in self._stop), default=0)
        cut = len(self._held) - keep
        passed, self._held = self._held[:cut], self._held[cut:]
        return passed

    def finish(self) -> str:
        """Return what was held back and turned out to be no stop string."""
        passed, self._held = self._held, ""
        return passed

    def _overlap(self, stop: str) -> int:
        longest = min(len(stop) - 1, len(self._held))
        return next((n for n in range(longest, 0, -1) if self._held.endswith(stop[:n])), 0)


class Continuation:
    """What becomes of one row's tokens: its text, and where it ends.

    A token that ends the row is no part of it; what comes after its end is ignored.
    """

    def __init__(self, decoder: Decoder, stop: Sequence[str] = (), end_ids: Collection[int] = ()):
        self._decoder, self._stops, self._end_ids = decoder, StopStrings(stop), frozenset(end_ids)
        self.token_ids: list[int] = []
        self.text = ""
        self.ended = False

    def push(self, token: int) -> str:
        """Return the text that is certain with this token, and was not given yet."""
        if not self.ended and token in self._end_ids:
            self.ended = True
        if self.ended:
            return ""
        self.token_ids.append(token)
        piece = self._stops.push(self._decoder.push(token))
        self.ended = self._stops.stopped
        self.text += piece
        return piece

    def finish(self) -> str:
        """Return the text that was held back, once no more tokens come."""
        piece = self._stops.push(self._decoder.finish()) + self._stops.finish()
        self.ended = self.ended or self._stops.stopped
        self.text += piece
        return piece


def stream_text(
    tokens: Iterable[int], decoder: Decoder, stop: Sequence[str] = (), end_ids: Collection[int] = ()
) -> Iterator[str]:
    """Yield text as its tokens arrive, up to the first stop string or end token."""
    row = Continuation(decoder, stop, end_ids)
    for token in tokens:
        if text := row.push(token):
            yield text
        if row.ended:
            break
    if text := row.finish():
        yield text
