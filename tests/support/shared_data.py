"""Real data for tests: what is free to come along lies in data/ here and at the top, the rest beside some
checkouts.
"""

import gzip
import os
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ALONG = Path(__file__).parent / "data"
EMBEDDED = ROOT / "data"


class SharedData:
    """`data / name` is the path of a file of this name. Where there is none, the test is skipped by name, and
    fails where LLM_JAX_REQUIRE_DATA=1 says that it must be there.
    """

    def __init__(self, unpacked: Path):
        """Args: unpacked: a folder for what comes along compressed."""
        self._beside = Path(os.environ.get("LLM_JAX_SHARED_DATA", ROOT.parent / "shared" / "data"))
        self._unpacked = unpacked

    def __truediv__(self, name: str) -> Path:
        for folder in (self._beside, ALONG):
            if (folder / name).is_file():
                return folder / name
        if (packed := EMBEDDED / f"{name}.gz").is_file():
            (self._unpacked / name).write_bytes(gzip.decompress(packed.read_bytes()))
            return self._unpacked / name
        missing = f"{name} must be in {self._beside}, or in the folder that LLM_JAX_SHARED_DATA names"
        if os.environ.get("LLM_JAX_REQUIRE_DATA") == "1":
            pytest.fail(missing)
        pytest.skip(missing)
