"""The live line of a run: step, loss, tokens per second, MFU and time left."""

import math
import time
from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from llm_jax.base import bars, terminal
from llm_jax.training.observers import Guard


class LiveLine:
    """Shows progress on a terminal; elsewhere it stays silent and only `say` prints.

    Args:
        steps: last step of the run.
        start: step at which this process begins.
        tokens_per_step: tokens that one step trains on.
        flops_per_token: work of a token, forward and backward.
        peak_flops: what the device does in a second at its best.
        guard: contains what showing it may raise.
    """

    def __init__(
        self,
        *,
        steps: int,
        start: int,
        tokens_per_step: int,
        flops_per_token: int,
        peak_flops: float,
        guard: Guard,
    ):
        self.console = terminal.console()
        self._alone = ExitStack()
        self._guard = guard
        self._tokens_per_step = tokens_per_step
        self._flops_per_token = flops_per_token
        self._peak_flops = peak_flops
        # Speed comes from the last few hundred calls of this process, so neither compilation nor an earlier
        # run counts.
        self._times: deque[tuple[int, float]] = deque(maxlen=300)
        self._seconds_aside = 0.0
        self._progress = Progress(
            TextColumn("step {task.completed:.0f}/{task.total:.0f}"),
            BarColumn(bar_width=20),
            TextColumn("{task.fields[figures]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=self.console,
            disable=not (self._alone.enter_context(bars.alone()) and self.console.is_terminal),
            refresh_per_second=4,
            get_time=time.perf_counter,
            speed_estimate_period=math.inf,  # The time left is that of evaluations and saves, too.
        )
        self._task = self._progress.add_task("train", total=steps, completed=start, figures="compiling")
        with self._guard("the live line"):
            self._progress.start()

    def reach(self, step: int, loss: float) -> dict[str, float]:
        """Note the last step of a compiled call that has just ended; give the "tokens_per_second" and "mfu",
        NaN after the first call and the first one after a roll-back.
        """
        if self._times and step <= self._times[-1][0]:
            self._times.clear()
        self._times.append((step, time.perf_counter() - self._seconds_aside))
        speed = self._speed()
        mfu = speed * self._flops_per_token / self._peak_flops
        with self._guard("the live line"):
            self._progress.update(self._task, completed=step, figures=_figures(loss, speed, mfu))
        return {"tokens_per_second": speed, "mfu": mfu}

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Leave out what is done within the block (an evaluation, a sample, a save) from the speed."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self._seconds_aside += time.perf_counter() - began

    def say(self, text: str) -> None:
        """Print a line above the live one."""
        with self._guard("the live line"):
            self.console.print(text, soft_wrap=True)

    def close(self) -> None:
        with self._guard("the live line"):
            self._progress.stop()
        self._alone.close()

    def _speed(self) -> float:
        if len(self._times) < 2:
            return math.nan
        (first, start), (last, end) = self._times[0], self._times[-1]
        return (last - first) * self._tokens_per_step / max(end - start, 1e-9)


def _figures(loss: float, speed: float, mfu: float) -> str:
    """What the live line says beside the step: what is not known yet, or no number, is left out."""
    shown = {"loss {:.3f}": loss, "{:,.0f} tokens/s": speed, "MFU {:.1%}": mfu}
    return "  ".join(form.format(value) for form, value in shown.items() if math.isfinite(value))
