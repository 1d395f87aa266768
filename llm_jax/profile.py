"""Command: `llm-jax profile [CONFIG.toml ...] [--section.field VALUE ...]`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter
from rich.box import SIMPLE_HEAD
from rich.table import Table

from llm_jax.base import strict_json
from llm_jax.base.errors import UserError, writing
from llm_jax.base.terminal import console, say, say_result
from llm_jax.cli import command
from llm_jax.config.effects import settle
from llm_jax.config.run import Config

if TYPE_CHECKING:
    from llm_jax.profiling.measure import Profile


def profile(
    *,
    steps: int = 20,
    out: Path = Path("runs/profile"),
    top: int = 12,
    figures: Path | None = None,
    config: Annotated[Config, Parameter(name="*")] = Config(),
    given: command.Given = command.NOTHING_GIVEN,
) -> None:
    """Show where the time of a training step goes: the run's own program, compiled, timed and traced.

    The configuration is that of `train`, from TOML files and options; nothing is trained that is kept. Shown
    are the time to compile and a step's, what each part of the model takes in forward, backward and
    update, the longest operations with the line of ours that each comes from, and the share of what the
    machine could do. Times of parts are those of all threads, so that on several cores their sum may exceed
    the step's time: the ratio says how many cores were busy. The trace itself can be opened in a viewer.

    Examples (beside another, with --train.batch_size 16: what would four times the batch change?):
      llm-jax profile tutorial --steps 20

    Parameters
    ----------
    steps:
        Steps that are traced, after as many untraced ones for the time of a step; rounded up to whole calls
        of train.steps_per_dispatch.
    out:
        Folder of the trace.
    top:
        How many of the longest operations are shown.
    figures:
        A JSON file for all figures, with every operation.
    """
    if steps < 1 or top < 0:
        raise UserError(f"steps ({steps}) must be at least 1 and top ({top}) at least 0")
    if figures is not None and (figures.is_dir() or not figures.parent.is_dir()):
        raise UserError(f"--figures {figures} must be a file in a folder that exists")
    config, _ = settle(config, given, {}, report=say)
    from llm_jax.profiling import measure

    measured = measure.profile(config, steps, out, report=say)
    _show_speed(measured)
    _show_parts(measured)
    _show_operations(measured, top)
    _show_trace(measured, out)
    found = measure.figures(measured)
    if figures is not None:
        with writing(figures):
            figures.write_text(strict_json.dumps(found, indent=2) + "\n", encoding="utf-8")
    say_result({name: value for name, value in found.items() if name not in ("parts", "operations")})


def _show_speed(measured: "Profile") -> None:
    ceiling = measured.ceiling
    say(f"{measured.device}: compiled in {measured.compile_seconds:.1f} s")
    say(
        f"{measured.seconds * 1e3:.2f} ms a step, {measured.tokens / measured.seconds:,.0f} tokens per second"
        f" ({measured.traced_seconds * 1e3:.2f} ms a step while traced)"
    )
    say(f"{measured.flops / 1e9:.3f} GFLOP a step in matrix products, {_share(measured)}")
    say(
        f"reading and writing {measured.state_bytes / 1e6:.1f} MB of state once a step takes at least "
        f"{measured.state_seconds * 1e3:.2f} ms ({ceiling.bandwidth / 1e9:.1f} GB/s measured)"
    )


def _share(measured: "Profile") -> str:
    ceiling = measured.ceiling
    if ceiling.flops is None:
        return f"no share of a peak, as {ceiling.origin}"
    return f"{measured.share:.1%} of {ceiling.flops / 1e9:,.0f} GFLOP/s ({ceiling.origin})"


def _show_parts(measured: "Profile") -> None:
    from llm_jax.profiling.program import PHASES
    from llm_jax.profiling.trace import sums

    cells = sums(measured.rows, "part", "phase")
    table = _table("by part of the model, ms a step", "part", *PHASES, "all", "share")
    for column in table.columns[1:]:
        column.justify = "right"

    def add(name: str, by_phase: list[float]) -> None:
        shown = [f"{seconds * 1e3:.3f}" if seconds else "" for seconds in by_phase]
        total = sum(by_phase)
        table.add_row(name, *shown, f"{total * 1e3:.3f}", f"{total / measured.busy_seconds:.1%}")

    for (part,) in sums(measured.rows, "part"):
        add(part, [cells.get((part, phase), 0) for phase in PHASES])
    table.add_section()
    phases = sums(measured.rows, "phase")
    add("all", [phases.get((phase,), 0) for phase in PHASES])
    console().print(table)
    kinds = [
        f"{kind} {seconds / measured.busy_seconds:.0%}"
        for (kind,), seconds in sums(measured.rows, "kind").items()
    ]
    say(f"by kind: {', '.join(kinds)}")
    say(
        f"{measured.busy_seconds * 1e3:.2f} ms of operations in {measured.traced_seconds * 1e3:.2f} ms: "
        f"{measured.busy_seconds / measured.traced_seconds:.2f} threads busy on average"
    )


def _table(title: str, *columns: str) -> Table:
    return Table(*columns, title=title, box=SIMPLE_HEAD, padding=(0, 1, 0, 0))


def _show_operations(measured: "Profile", top: int) -> None:
    names = ("operation", "ms", "share", "runs", "kind", "part", "phase", "source")
    table = _table("longest operations, ms a step", *names)
    for column in (*table.columns[1:5], *table.columns[6:]):
        column.no_wrap = True
    for name, operation, seconds, runs in measured.rows[:top]:
        numbers = (f"{seconds * 1e3:.3f}", f"{seconds / measured.busy_seconds:.1%}", f"{runs:g}")
        table.add_row(name, *numbers, operation.kind, operation.part, operation.phase, operation.source)
    console().print(table)


def _show_trace(measured: "Profile", out: Path) -> None:
    for file in measured.files:
        say(f"trace: {file}")
    say(f"open the .json.gz at https://ui.perfetto.dev, or: pip install xprof; xprof --port 8791 {out}")


if __name__ == "__main__":
    command.run(profile, takes_files=True)
