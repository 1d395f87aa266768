"""The run that tests of runs share."""

from pathlib import Path

import pytest

from llm_jax.train import train
from tests.support.commands import run_command, words_for


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory, prose: Path) -> Path:
    """A finished run."""
    folder = tmp_path_factory.mktemp("trained")
    run_command(train, words_for(folder, prose), takes_files=True)
    return folder / "run"
