"""A run's observer without a run around it."""

from types import SimpleNamespace
from typing import Any

import pytest

from llm_jax.runs import observer
from llm_jax.runs.data import Materials
from llm_jax.runs.observer import Around, Observer


def an_observer(material: Materials, around: Around) -> Observer:
    """Before the first step of a run that has no checkpoint; nothing is counted, measured or said."""
    checkpoints: Any = SimpleNamespace(best_step=lambda: None, since_best=0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(observer.starts, "opening", lambda *_: ())
        patch.setattr(observer, "measure_peak_flops", lambda _: 1e9)
        return Observer(material, checkpoints, {"counters": {"step": 0}}, around)
