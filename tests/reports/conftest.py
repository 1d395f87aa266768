"""The runs that tests of reports share."""

import contextlib
import io
from pathlib import Path

import pytest

from llm_jax.reports import gather
from llm_jax.reports.run_page import RunFacts
from llm_jax.train import train
from tests.support.commands import run_command, words_for

pytestmark = pytest.mark.compiles


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("reports")


@pytest.fixture(scope="session")
def finished(folder: Path, prose: Path) -> tuple[str, str]:
    """What a run that has learned something printed, and the page it left."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        run_command(train, words_for(folder, prose, "--optim.learning_rate=0.01"), takes_files=True)
    return printed.getvalue(), (folder / "run" / "report.html").read_text()


@pytest.fixture(scope="session")
def trained(folder: Path, finished: tuple[str, str]) -> Path:
    """Its directory."""
    return folder / "run"


@pytest.fixture(scope="session")
def idle(folder: Path, prose: Path, trained: Path) -> Path:
    """A run on the same text with another tokenizer and split that has learned next to nothing."""
    more = ["--optim.learning_rate=1e-7", "--data.tokenizer=bytes", "--data.validation_fraction=0.3"]
    (folder / "beside").mkdir()
    run_command(train, words_for(folder / "beside", prose, *more), takes_files=True)
    return (folder / "beside" / "run").rename(folder / "idle")


@pytest.fixture(scope="session")
def facts(trained: Path) -> RunFacts:
    return gather.gather_facts(trained, gather.open_run(trained, print))
