"""The live line's arithmetic."""

import math

import pytest

from llm_jax.training import progress


def test_the_speed_is_that_of_whole_calls_and_pauses_do_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(progress.time, "perf_counter", lambda: clock[0])
    live = progress.LiveLine(steps=100, start=0, tokens_per_step=64, flops_per_token=6, peak_flops=1e4)

    def reach(step: int, at: float) -> float:
        clock[0] = at
        speed = live.reach(step, 1.0)
        assert speed["mfu"] == pytest.approx(speed["tokens_per_second"] * 6e-4, nan_ok=True)
        return speed["tokens_per_second"]

    assert math.isnan(reach(10, 100.0))  # The first call may have compiled.
    assert reach(20, 102.0) == 64 * 10 / 2
    assert reach(30, 108.0) == 64 * 20 / 8
    live.pause()
    assert math.isnan(reach(40, 200.0))
    assert reach(50, 201.0) == 64 * 10
    live.close()
