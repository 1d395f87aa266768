"""From a stream of token ids to a stream of text: whole characters only, cut at stop strings."""

from collections.abc import Iterable, Iterator, Sequence
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
        """The part of all text so far that is certain to come before any stop string, and was not passed on
        yet.
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
        """What was held back and turned out to be no stop string."""
        passed, self._held = self._held, ""
        return passed

    def _overlap(self, stop: str) -> int:
        longest = min(len(stop) - 1, len(self._held))
        return next((n for n in range(longest, 0, -1) if self._held.endswith(stop[:n])), 0)


def stream_text(tokens: Iterable[int], decoder: Decoder, stop: Sequence[str] = ()) -> Iterator[str]:
    """Yields text as its tokens arrive; ends before the first stop string, or with the tokens."""
    stops = StopStrings(stop)
    for token in tokens:
        if text := stops.push(decoder.push(token)):
            yield text
        if stops.stopped:
            return
    if text := stops.push(decoder.finish()) + stops.finish():
        yield text
