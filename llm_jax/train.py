"""Command: `llm-jax train [CONFIG.toml ...] [--section.field VALUE ...]`."""

from collections.abc import Mapping
from typing import Annotated, Any

from cyclopts import Parameter

from llm_jax.base.errors import InterruptedAndSaved
from llm_jax.base.terminal import only_show, say, say_result
from llm_jax.cli import command
from llm_jax.config.effects import settle
from llm_jax.config.rules import Whole
from llm_jax.config.run import Config
from llm_jax.planning.depth_rules import derive_model, with_derived
from llm_jax.planning.first_run import FIRST_RUN
from llm_jax.planning.time_budget import parse_time, with_fall
from llm_jax.training.interrupt import BEFORE_FIRST_STEP, Stopped, stopped


def train(
    *,
    depth: Whole | None = None,
    time: str | None = None,
    continue_with_changes: Annotated[bool, Parameter(name="--continue-with-changes", negative="")] = False,
    open_it: command.Open = False,
    config: Annotated[Config, Parameter(name="*")] = Config(),
    given: command.Given = command.NOTHING_GIVEN,
) -> None:
    """Train a decoder on a text: prepare tokens, train, evaluate, sample and save; resume
    automatically.

    Examples:
      llm-jax train --run runs/first
      llm-jax train --corpus my_book.txt
      llm-jax train tutorial --corpus my_book.txt --run runs/tutorial --steps 2000
      llm-jax train --depth 4 --corpus my_book.txt --run runs/deep
      llm-jax train --time 3m --corpus my_book.txt --run runs/timed

    CONFIG is a TOML file, or the name of one that comes along (llm-jax configs lists them); of several the
    last one wins, and options win over all. Without one, and without depth, time and init_from, a run that
    exists keeps its own settings, and a new one has those of first, with --corpus made to fit that text;
    beside others, the defaults are those of tutorial. A value that has no effect beside the others is
    refused; where a later file or an option made it so, it is left out, and a line says so.

    Ctrl-C, SIGTERM, SIGHUP and SIGUSR1 save first (exit status 75); a second Ctrl-C ends at once. What is
    shown or recorded never ends a run: it may be closed, full or gone.

    A run directory that already holds a run is continued: bit for bit with the same versions, kind of device
    and number of threads. Where things lie and what is measured, shown and kept may be given anew (paths, the
    same text elsewhere, intervals, keep, prompt, patience). More --train.steps extend it; what else changes
    the steps to come needs --continue-with-changes; another model, tokenizer or text is refused.

    --train.init_from DIR starts from an existing model (a run or an import) instead of random weights. Its
    tokenizer and its [model] settings come with it; of these only how it runs can be
    given (dtype, layers, remat, attention, dropout, a shorter context_length, which then is the new model's).

    Parameters
    ----------
    depth:
        Number of layers of a modern decoder; all settings that you do not give are derived from it, and a
        table lists each with its rule and source. With `time`, steps and schedule come from that instead.
    time:
        How long the whole command shall take, such as 90s, 3m or 1h30m: a few steps are timed, then steps,
        evaluations and saves are set to end then, in place of a file's settings, and so are schedule and
        warm-up where none is given. Model and batch are sized too, unless `depth` or one of d_model,
        num_layers, num_heads, d_ff, context_length and batch_size is given. A run that exists goes on with
        the plan that it was begun with, and what is given beside it must agree.
    continue_with_changes:
        Go on with a run though rates, schedule, batch or another setting of the steps to come differ;
        what changed after which step is kept in the run, so that `replay` does each step as it was.
    open_it:
        Open the run's report in a browser, where it follows the training.
    """
    only_show()
    try:
        _train(depth, time, config, given, agreed=continue_with_changes, watched=open_it)
    except Stopped as signal:
        raise InterruptedAndSaved(stopped(signal.name, BEFORE_FIRST_STEP)) from None


def _train(
    depth: int | None,
    time: str | None,
    config: Config,
    given: Mapping[str, int],
    *,
    agreed: bool,
    watched: bool,
) -> None:
    seconds = None if time is None else parse_time(time)
    derived = [] if depth is None else derive_model(depth, config, given)
    config = with_derived(config, derived)
    if seconds is not None:
        config = with_fall(config, given)
    config, given = settle(config, given, {"time": time}, report=say)
    from llm_jax.planning import by_depth, by_time
    from llm_jax.runs.train import run
    from llm_jax.training.loop import claim_device

    claim_device(say)
    if depth is not None:
        config = by_depth.sized_config(config, depth, given, timed=seconds is not None, report=say)
    if seconds is not None:
        chosen = {*given, *(row.setting for row in derived)}
        config = by_time.planned_config(config, seconds, report=say, given=chosen)
    watch = _live_page() if watched else None
    say_result(run(config, _leave_report, seconds, agreed=agreed, longer="train.steps" in given, watch=watch))


def _leave_report(*ended: Any) -> str | None:
    from llm_jax.reports.gather import leave_report  # half a second that the first step need not wait for

    return leave_report(*ended)


def _live_page() -> Any:
    from llm_jax.display.browser import open_page
    from llm_jax.reports.live_page import LivePage

    return LivePage(lambda page: open_page(page, say))


if __name__ == "__main__":
    command.run(train, takes_files=True, without_files=FIRST_RUN)
