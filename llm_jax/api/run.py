"""A run as a value: what `llm_jax.train` gives, and what its directory says of it."""

import dataclasses
from pathlib import Path
from typing import Any

from llm_jax.base.errors import CheckpointError
from llm_jax.base.json_lines import read_lines
from llm_jax.base.terminal import say
from llm_jax.checkpoints.reader import read_about
from llm_jax.checkpoints.step_files import checkpoint_directory
from llm_jax.config.load import config_from_dict
from llm_jax.config.run import Config
from llm_jax.display.notebook import html_table
from llm_jax.language_model.model import LanguageModel, load

_SHOWN = 10  # of the last lines of a table in a notebook


class Metrics(list[dict[str, Any]]):
    """Lines of a run's metrics.jsonl, each a dict with "step"; `pandas.DataFrame` takes it as it is."""

    def _repr_html_(self) -> str:
        lines = [
            {name: value for name, value in line.items() if not isinstance(value, dict)} for line in self
        ]
        return html_table(f"last {min(_SHOWN, len(self))} of {len(self)} lines", lines[-_SHOWN:])


@dataclasses.dataclass(frozen=True, repr=False)
class Run:
    """A run, by its directory; everything is read from there, so it may still be training.

    >>> run = llm_jax.Run("runs/first")
    >>> run
    Run(runs/first, step 4 of 4, validation loss ...)
    >>> run.metrics[-1]["step"]
    4
    >>> run.model
    LanguageModel(step 4, 1 layer, ...)
    """

    directory: str | Path

    def __repr__(self) -> str:
        return f"Run({', '.join(self._facts().values())})"

    def _repr_html_(self) -> str:
        return html_table("Run", [self._facts()])

    @property
    def config(self) -> Config:
        """The run's configuration, as its newest checkpoint has it.

        Raises:
            CheckpointError: there is none, or it is damaged.
        """
        return config_from_dict(self._about()["config"], str(self.directory))

    @property
    def model(self) -> LanguageModel:
        """The trained model, as `llm_jax.load` gives it."""
        return load(self.directory)

    @property
    def metrics(self) -> Metrics:
        """What was measured, a dict a line: losses in nats per token, norms, rates, speeds."""
        return Metrics(read_lines(Path(self.directory) / "metrics.jsonl"))

    def report(self, out: str | Path | None = None) -> Path:
        """Write the run's report and return its path.

        Args:
            out: the page to write; report.html in the run's directory without one.

        Raises:
            CheckpointError: it is no run directory.
            UserError: the page cannot be written.

        >>> llm_jax.Run("runs/first").report().name
        runs/first: step 4 of 4, the best by validation
        'report.html'
        """
        from llm_jax.reports.gather import open_run, write_report  # matplotlib, which nothing else needs

        directory = Path(self.directory)
        page = Path(out) if out else directory / "report.html"
        write_report(directory, open_run(directory, say), page)
        return page

    def _about(self) -> dict[str, Any]:
        return read_about(checkpoint_directory(Path(self.directory)))

    def _facts(self) -> dict[str, str]:
        facts = {"directory": str(self.directory)}
        try:
            about = self._about()
        except CheckpointError:
            return facts | {"step": "no checkpoint"}
        facts["step"] = f"step {about['step']:,} of {about['config']['train']['steps']:,}"
        scores = {
            line["step"]: loss for line in self.metrics if (loss := line.get("validation_loss")) is not None
        }
        if scores:
            best = min(scores, key=lambda step: scores[step])
            facts["loss"] = f"validation loss {list(scores.values())[-1]:.3f}"
            facts["best"] = f"best {scores[best]:.3f} at step {best:,}"
        return facts
