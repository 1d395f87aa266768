"""What people see of a run while it trains, and what it leaves at its end: lines, samples, a report."""

import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from llm_jax.base.compilation import CompileTime
from llm_jax.base.process import seconds_since_start
from llm_jax.base.tree import State, Tree
from llm_jax.checkpoints.writer import Checkpoints
from llm_jax.evaluation.baselines import beaten, why_not_beaten
from llm_jax.runs import record, starts
from llm_jax.runs.best import Best, best_of, patience_line, rising_line
from llm_jax.runs.data import Materials
from llm_jax.runs.progress import LiveLine
from llm_jax.runs.samples import draw_sample
from llm_jax.training import loop
from llm_jax.training.interrupt import stopped
from llm_jax.training.observers import Guard, warn
from llm_jax.training.throughput import flops_per_token, measure_peak_flops

# Makes the report of a run that has ended from its materials, parameters and the function that names the
# signal which asked to stop; gives the page's path, None where it was given up.
LeaveReport = Callable[[Materials, Tree, Callable[[], str]], str | None]
# Shows a run while it trains, from its files, as often as it thinks fit: from its materials, baselines and
# whether it still trains.
Watch = Callable[[Materials, Mapping[str, float], bool], None]
_PREFIX = "validation_"  # of an evaluation's numbers in metrics.jsonl
_FIRST_WORDS = 24  # tokens, at most, of a sample before the end


class Around(NamedTuple):
    """What records a run, and what asks it to stop."""

    run_record: record.RunRecord
    compiling: CompileTime
    leave_report: LeaveReport
    stop_requested: Callable[[], str]
    watch: Watch | None
    began: float | None = None  # when a program asked for it, by `time.perf_counter`

    def seconds(self) -> float:
        """Return the seconds since the command, or the program's call, began."""
        return seconds_since_start() if self.began is None else time.perf_counter() - self.began


class Observer:
    """One start of a run, as it is seen. What is shown or recorded never ends it.

    Args:
        material: of the run.
        checkpoints: its own.
        state: before the first step of this start.
        around: what records it.
    """

    def __init__(self, material: Materials, checkpoints: Checkpoints, state: State, around: Around):
        self._began, self._start = time.perf_counter(), int(state["counters"]["step"])
        self._material, self._checkpoints, self._around = material, checkpoints, around
        self._settings, self._guard = material.config.train, Guard(warn)
        self._times: dict[str, float] = {}
        self._baselines: dict[str, float] = {}
        with self._guard("the counting of baselines"):
            self._baselines = material.baselines()
        model = material.config.model
        self._live = LiveLine(
            steps=self._settings.steps,
            start=self._start,
            tokens_per_step=self._settings.batch_size * model.context_length,
            flops_per_token=flops_per_token(model),
            peak_flops=measure_peak_flops(model.dtype),
            guard=self._guard,
        )
        opening = starts.opening(material, state, self._baselines)
        for line in (*opening, patience_line(self._settings, self._start, checkpoints)):
            self._say(line)

    def callbacks(self) -> loop.Callbacks:
        """Return what the loop calls."""
        return loop.Callbacks(
            self._material.batch_at,
            self._evaluate,
            self._on_steps,
            self._on_evaluation,
            warn,
            self._live.aside,
            self._around.stop_requested,
        )

    def look(self, *, trains: bool = True) -> None:
        """Let whoever watches the run look at it."""
        if self._around.watch:
            with self._guard("the page of the run"):
                self._around.watch(self._material, self._baselines, trains)

    def close(self) -> None:
        """Clear the live line, when the steps have ended."""
        self._live.close()

    def end(self, state: State, score: Mapping[str, float]) -> dict[str, Any]:
        """Leave sample and report of the best checkpoint; return what sums the run up, as plain values.

        Args:
            state: after the last step.
            score: the last evaluation's numbers.
        """
        settings, done = self._settings, int(state["counters"]["step"])
        if done > self._start:
            self._say(patience_line(settings, done, self._checkpoints))
        last_params = loop.evaluated_params(self._material.config.model, state)
        best = Best(done, last_params, score[f"{_PREFIX}loss"])
        with self._guard("the best checkpoint"):
            best = best_of(best, settings, self._checkpoints, self._live.say)
        if text := self._sample(best.step, best.params, settings.sample_tokens, keep=self._start < done):
            self._live.say(f"\n{text}\n")
        self._say(self._why_not_beaten(best))
        self._times["seconds"] = round(time.perf_counter() - self._began, 1)
        self._times["compile_seconds"] = round(self._around.compiling.seconds, 1)
        if self._start == 0:  # Of a run that was stopped, nobody knows the times as a whole.
            self._around.run_record.write(done, **self._times)
        page = self._leave_report(best.params)
        more = (
            "Generate more: llm-jax generate"
            if self._material.task.writes_text
            else "Ask it: llm-jax predict"
        )
        self._live.say(f"Saved in {settings.run}. {more} {settings.run}")
        summary = {"run": str(settings.run), "step": done, "best_step": best.step, **score}
        if before := record.score_before(settings.run, list(score)):
            self._say(self._before_and_after(before, score))
            summary["before"] = before
        return summary | {"baselines": self._baselines} | self._times | {"report": page}

    def _say(self, line: str) -> None:
        if line:
            self._live.say(line)

    def _evaluate(self, params: Tree) -> dict[str, float]:
        return {f"{_PREFIX}{name}": value for name, value in self._material.evaluate(params).items()}

    def _on_steps(self, steps: range, metrics: list[dict[str, Any]]) -> None:
        if not self._times:
            self._times["seconds_to_first_step"] = round(self._around.seconds(), 2)
            self._say(f"started after {self._times['seconds_to_first_step']:.1f} s (mostly compilation)")
        last = metrics[-1]
        speed = self._live.reach(steps[-1], record.mean_loss([(last["loss_sum"], last["weight"])]))
        for step, each in zip(steps, metrics, strict=True):
            logged = loop.is_logged(self._settings, step)
            self._around.run_record.add_step(step, each, speed if logged else None)
        with self._live.aside():
            self.look()

    def _on_evaluation(self, step: int, params: Tree, score: dict[str, float]) -> None:
        self._around.run_record.write(step, **score)
        against = f"; {beaten(score[f'{_PREFIX}loss'], self._baselines)}" if self._baselines else ""
        self._say(f"step {step}: {self._material.task.line.format(**_bare(score))}{against}")
        self._say(rising_line(self._checkpoints))
        if step < self._settings.steps:
            text = self._sample(step, params, min(self._settings.sample_tokens, _FIRST_WORDS), keep=True)
            self._say(text and f"    {text}".replace("\n", " "))
        self.look()

    def _sample(self, step: int, params: Tree, num_tokens: int, *, keep: bool) -> str:
        """A sample, kept in the run's record; empty where none is drawn."""
        if self._material.samples and not self._around.stop_requested():
            with self._guard("the sample"):
                text = self._settings.prompt + draw_sample(self._material, params, num_tokens)
                if keep:
                    self._around.run_record.write_sample(step, text)
                return text
        return ""

    def _why_not_beaten(self, best: Best) -> str:
        tokens, config = len(self._material.store.tokens("train")), self._material.config
        read = best.step * config.train.batch_size * config.model.context_length
        return why_not_beaten(best.loss, self._baselines, tokens, read / max(1, tokens))

    def _leave_report(self, params: Tree) -> str | None:
        """The report's path; None where it could not be made, or was given up."""
        page, around = None, self._around
        with self._guard("the report"):
            if not around.stop_requested():
                page = around.leave_report(self._material, params, around.stop_requested)
        if page:
            self._say(f"report: {page}")
            return page
        self.look(trains=False)
        if name := around.stop_requested():
            then = " after the last step. All is saved; the report is left out. To make it: "
            warn(stopped(name, then) + f"llm-jax report {self._settings.run}")
        return None

    def _before_and_after(self, before: Mapping[str, float], score: Mapping[str, float]) -> str:
        metric = self._material.task.metrics[0]
        first, last = (metric.shown(_bare(each)) for each in (before, score))
        if not (first and last):
            return ""
        return f"{metric.label}: {first[0]} before the first step, {last[0]} after the last"


def _bare(score: Mapping[str, Any]) -> dict[str, Any]:
    """An evaluation's numbers as its task names them."""
    return {name.removeprefix(_PREFIX): value for name, value in score.items()}
