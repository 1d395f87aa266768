"""Command: `llm-jax verify parity GOLDEN.npz`, `resume [DIR|CONFIG.toml]`, `width [CONFIG]`."""

import json
import sys
import tempfile
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from llm_jax.base.errors import PROOF_FAILED, UserError
from llm_jax.base.terminal import say, say_result
from llm_jax.cli import command
from llm_jax.config.load import config_from_dict, read_config
from llm_jax.config.rules import Whole
from llm_jax.config.run import Config, MovedConfig
from llm_jax.runs.inherited import INHERITED

verify = App(name="verify", help="Proofs as commands: numerical parity with torch, exact resume, and muP.")


@verify.command
def parity(golden: Path, /) -> None:
    """Run the weights and batches of a golden file and print how far every number is from torch's; exit
    status 6 over the bounds.

    Examples (make parity writes golden files beside a real torch):
      llm-jax verify parity golden.npz

    Parameters
    ----------
    golden:
        A .npz file with start weights, batches, logits, loss, gradients, losses and greedy tokens (see
        docs/architecture.md).
    """
    from llm_jax.proofs.tutorial import prove

    if not prove(golden):
        sys.exit(PROOF_FAILED)


@verify.command
def resume(
    source: Path | None = None,
    /,
    *,
    steps: Whole = 40,
    accumulation_steps: Whole | None = None,
    moved: Annotated[MovedConfig, Parameter(name="*")] = MovedConfig(),
) -> None:
    """Train straight and with a SIGKILL in the middle, and compare every bit of the state and every loss;
    exit status 6 if any differs.

    Examples:
      llm-jax verify resume

    Parameters
    ----------
    source:
        A run directory, or a configuration (a TOML file, or a name as `llm-jax configs` lists them).
    steps:
        Length of both runs.
    accumulation_steps:
        Parts of a batch, in place of the configuration's.
    """
    from llm_jax.proofs.resume import compare_runs, short_run
    from llm_jax.runs.data import moved_to

    if steps < 8:
        raise UserError(f"steps ({steps}) must be at least 8")
    if source is None:
        config = Config()
    elif source.is_dir():
        try:
            config = config_from_dict(
                json.loads((source / "config.json").read_text()), str(source / "config.json")
            )
        except (OSError, ValueError) as error:
            raise UserError(f"{source} must be a run directory: {error}") from None
    else:
        config = read_config([source], below=INHERITED)
    with tempfile.TemporaryDirectory() as folder:
        found = compare_runs(
            short_run(moved_to(config, moved), steps, accumulation_steps),
            Path(folder),
            kill_after=steps * 5 // 8,
        )
    differing = len(found["differing_leaves"]) + len(found["differing_losses"])
    say(
        f"killed after step {found['killed_after']}, resumed at {found['resumed_at']}: "
        f"{len(found['differing_leaves'])} of {found['leaves']} leaves and "
        f"{len(found['differing_losses'])} of {found['losses']} losses differ"
    )
    say_result({"holds": not differing, **found})
    if differing:
        sys.exit(PROOF_FAILED)


@verify.command
def width(
    source: Path | None = None,
    /,
    *,
    smallest: Whole = 64,
    largest: Whole = 1024,
    steps: Whole = 6,
    png: Path | None = None,
) -> None:
    """Do a few steps of a small decoder at several widths and say how sizes inside grow with the width, in
    the standard way and under muP (`model.base_width`); exit status 6 if muP does not keep them.

    Examples:
      llm-jax verify width

    Parameters
    ----------
    source:
        A configuration whose decoder, 2 layers of it, and optimizer are tried; the default is the tutorial's
        with ten times its rate.
    smallest:
        First width, also the base of muP; the others are its doubles.
    largest:
        No width is above this.
    steps:
        Steps at each width.
    png:
        A file for a picture of sizes by width and step.
    """
    from llm_jax.proofs.width import check

    checked = check(source, smallest, largest, steps)
    if png:
        from llm_jax.display.figures import write_png
        from llm_jax.reports.width_picture import sizes_picture

        write_png(sizes_picture(checked.widths, checked.sizes), png)
    if not checked.holds:
        sys.exit(PROOF_FAILED)


if __name__ == "__main__":
    command.run(verify)
