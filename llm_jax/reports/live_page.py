"""The report of a run while it trains: RUN/report.html, written anew now and then, and renewed by itself."""

import time
from collections.abc import Callable, Mapping
from pathlib import Path

from llm_jax.base.json_lines import read_lines
from llm_jax.base.tree import count_parameters
from llm_jax.display.page import write_page
from llm_jax.model.decoder import abstract_params
from llm_jax.reports.chart import with_tokens
from llm_jax.reports.gather import all_settings, samples
from llm_jax.reports.run_page import Live, RunFacts, run_page, run_pictures
from llm_jax.runs import continuing
from llm_jax.runs.data import Materials

SECONDS = 5  # between looks of a browser at the page
_SHARE = 10  # a page that took a second to write is not written again for so many


class LivePage:
    """Writes the page of a run in training, at most every few seconds and a small share of its time.

    Args:
        show: gets the page's path once it is there.
    """

    def __init__(self, show: Callable[[Path], None]):
        self._show = show
        self._due = 0.0

    def __call__(self, material: Materials, baselines: Mapping[str, float], trains: bool) -> None:
        """Write the page if that is due, and in any case where the run has ended: then it renews itself no
        more.

        Raises:
            UserError: it cannot be written.
        """
        began = time.monotonic()
        if trains and began < self._due:
            return
        page, first = material.config.train.run / "report.html", not self._due
        # Due later even where it fails, so that what fails is not tried at every step.
        self._due = began + SECONDS
        facts = _facts(material, baselines)
        live = Live(SECONDS, time.strftime("%H:%M:%S")) if trains else None
        write_page(page, run_page(facts, run_pictures(facts), live=live))
        ended = time.monotonic()
        self._due = ended + max(SECONDS, _SHARE * (ended - began))
        if first:
            self._show(page)


def _facts(material: Materials, baselines: Mapping[str, float]) -> RunFacts:
    """What a run's own files and configuration say; the model is not asked."""
    config, run = material.config, material.config.train.run
    entries = read_lines(run / "metrics.jsonl")
    return RunFacts(
        name=str(run),
        steps=config.train.steps,
        parameters=count_parameters(abstract_params(config.model)),
        entries=with_tokens(entries, config, material.history),
        samples=samples(run, lambda _: None),
        baselines=baselines,
        passage=[],
        tokenizer=[],
        data=[],
        machine=[],
        versions=[],
        command="",
        settings=all_settings(config, material.store.tokenizer),
        checkpoints=[],
        missing=[],
        history=continuing.told(material.history),
        metrics=material.task.metrics,
    )
