"""Command: `llm-jax replay RUN --step N`."""

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter
from rich.table import Table
from rich.text import Text

from llm_jax.base.bars import tracked
from llm_jax.base.errors import UserError
from llm_jax.base.terminal import console, say, say_result
from llm_jax.cli import command
from llm_jax.config.rules import Whole
from llm_jax.config.run import MovedConfig
from llm_jax.display.colours import legend, shade

if TYPE_CHECKING:
    from rich.console import Console

    from llm_jax.runs.replay import Comparison, Replayed, Target
    from llm_jax.tokenization.protocol import Tokenizer

_STANDS_OUT = 3.0  # times the median


def replay(
    directory: Path,
    /,
    *,
    step: Whole,
    before: Whole = 20,
    rows: Whole = 4,
    hardest: Whole = 10,
    moved: Annotated[MovedConfig, Parameter(name="*")] = MovedConfig(),
) -> None:
    """Replay one training step and show what caused its loss.

    Batch and dropout follow from the seed and the step, so nothing needs to have been logged: the run is
    recomputed from a checkpoint, to the same bits on the same machine. Shown are the batch, each token
    coloured by its loss, the targets that were hardest, and the norms of gradient and update beside their
    medians over the steps just before.

    Examples (the loss in runs/mine/metrics.jsonl is odd at step 1234; what did the model read then?):
      llm-jax replay runs/mine --step 1234

    Parameters
    ----------
    directory:
        A run directory.
    step:
        The optimizer step, numbered from 1 as in metrics.jsonl.
    before:
        Fewest steps recomputed before it, for the medians; 0 starts at the nearest checkpoint.
    rows:
        How many rows of the batch are shown, those with the highest loss first.
    hardest:
        How many of the hardest targets are shown.
    """
    numbers = {"before": before, "rows": rows, "hardest": hardest}
    if broken := [f"{name} ({n}) must be at least 0" for name, n in numbers.items() if n < 0]:
        raise UserError("; ".join(broken))
    from llm_jax.runs import replay as replaying

    material = replaying.open_run(directory, step, say, moved)
    tokenizer = material.store.tokenizer
    replayed = replaying.replay(
        directory, material, step, before, report=say, track=lambda steps: tracked(steps, "recomputing")
    )
    compared = replaying.compare(replayed, directory)
    targets = replaying.hardest_targets(replayed, tokenizer, hardest, material.store.labels)
    shown = console()
    _show_rows(shown, replayed, tokenizer, rows)
    _show_targets(shown, targets)
    _show_norms(shown, replayed)
    _show_summary(shown, replayed, compared)
    say_result({"run": str(directory), **replaying.summary(replayed, compared, targets)})


def _show_rows(shown: "Console", replayed: "Replayed", tokenizer: "Tokenizer", count: int) -> None:
    from llm_jax.runs.replay import row_pieces

    losses = replayed.row_losses()
    shown.print(Text.assemble("\nbatch by loss in nats: ", *legend()))
    for row in sorted(range(len(losses)), key=lambda row: (not math.isnan(losses[row]), -losses[row]))[
        :count
    ]:
        pieces = row_pieces(replayed, tokenizer, row)
        pieces_shown = [(piece.replace("\n", "\u21b5"), shade(nats)) for piece, nats in pieces]
        shown.print(Text.assemble((f"row {row}, mean {losses[row]:.3f}: ", "bold"), *pieces_shown))


def _show_targets(shown: "Console", targets: "list[Target]") -> None:
    table = Table("row", "position", "context", "target", "nats", "probability", title="hardest targets")
    for row, position, context, target, nats, probability in targets:
        texts = (Text(repr(context)[1:-1]), Text(repr(target)[1:-1], shade(nats)))
        table.add_row(str(row), str(position), *texts, f"{nats:.2f}", f"{probability:.1e}")
    shown.print(table)


def _show_norms(shown: "Console", replayed: "Replayed") -> None:
    from llm_jax.runs.replay import beside_median

    kinds = {name: beside_median(replayed, name) for name in ("grad_norms", "update_norms")}
    titles = [
        title for kind in ("gradient", "update") for title in (f"{kind} norm", "median before", "times")
    ]
    table = Table("part", *titles, title="norms by part and layer")
    for path in kinds["grad_norms"]:
        cells: list[str | Text] = []
        for norms in kinds.values():
            norm, median = norms[path]
            times = norm / median if median else None
            style = "bold red" if times and not times < _STANDS_OUT else ""
            cells += [f"{norm:.3g}", f"{median:.3g}" if median is not None else "-"]
            cells.append(Text(f"{times:.2f}" if times is not None else "-", style))
        table.add_row(path, *cells)
    shown.print(table)


def _show_summary(shown: "Console", replayed: "Replayed", compared: "Comparison") -> None:
    verdict = {
        True: "equal to the bit",
        False: "NOT equal (another machine or version?)",
        None: "not compared",
    }
    metrics = replayed.metrics
    table = Table("measure", "value", title=f"step {replayed.step}, batch {replayed.batch_index}")
    table.add_row("loss, nats per token", f"{replayed.loss:.6f}")
    if compared.logged_loss is not None or compared.loss_equal is not None:
        over = f"mean of {compared.averaged_steps} steps, " if compared.averaged_steps != 1 else ""
        table.add_row("logged loss", f"{compared.logged_loss} ({over}{verdict[compared.loss_equal]})")
        table.add_row(
            "logged gradient norm", f"{compared.logged_grad_norm} ({verdict[compared.grad_norm_equal]})"
        )
    table.add_row("gradient norm", f"{metrics['grad_norm']:.4g}")
    table.add_row("update norm", f"{metrics['update_norm']:.4g}")
    table.add_row("learning rate", f"{metrics['learning_rate']:.4g}")
    table.add_row("skipped as not finite", "yes" if metrics["skipped"] else "no")
    shown.print(table)


if __name__ == "__main__":
    command.run(replay)
