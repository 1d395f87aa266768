"""The place in which the examples of the API run."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.shared_data import ROOT


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """An own folder beside the project's data, as `examples` is; the process stands in it."""
    folder = tmp_path_factory.mktemp("project") / "examples"
    folder.mkdir()
    (folder.parent / "data").symlink_to(ROOT / "data")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        yield folder
