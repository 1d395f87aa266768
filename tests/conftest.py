"""The suite's surroundings: 8 CPU devices, strict rank promotion, one tiny model, and real data."""

import os
from collections.abc import Iterator
from pathlib import Path

# Before JAX is imported: the code that runs under 8 devices here is the code that runs on a pod.
os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
os.environ["JAX_PLATFORMS"] = "cpu"

from llm_jax.base.compilation import keep_compiled_programs

keep_compiled_programs()

import jax
import numpy as np
import pytest

from llm_jax.base.tree import Tree
from llm_jax.config.model import ModelConfig
from llm_jax.model.decoder import init_params
from tests.support.shared_data import ROOT, SharedData

jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture(autouse=True, scope="module")
def programs_of_one_module() -> Iterator[None]:
    """Compiled programs go with the module that used them: each takes maps of memory, of which Linux gives a
    process 65,530, and a long suite in few processes came near to that.
    """
    yield
    jax.clear_caches()


@pytest.fixture(scope="session")
def shared_data(tmp_path_factory: pytest.TempPathFactory) -> SharedData:
    """Real data for tests, each file by `shared_data / name`."""
    return SharedData(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="session")
def tiny() -> ModelConfig:
    """Small, and odd wherever a number may be odd."""
    return ModelConfig(
        vocab_size=37,
        spare_embedding_rows=1,
        context_length=12,
        d_model=12,
        num_layers=3,
        num_heads=3,
        d_ff=20,
    )


@pytest.fixture(scope="session")
def tiny_params(tiny: ModelConfig) -> Tree:
    return init_params(jax.random.key(0), tiny)


@pytest.fixture(scope="session")
def tokens_BT(tiny: ModelConfig) -> np.ndarray:
    """Three rows as long as the tiny model's context."""
    return np.random.default_rng(0).integers(0, tiny.vocab_size, (3, tiny.context_length)).astype(np.int32)


@pytest.fixture(scope="session")
def prose(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small text file of real English."""
    path = tmp_path_factory.mktemp("text") / "prose.txt"
    path.write_text(
        (ROOT / "data" / "sales_handbook.txt").read_text(encoding="utf-8")[:12000], encoding="utf-8"
    )
    return path


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """The last line counts and names what was skipped."""
    skipped = sorted(report.nodeid for report in terminalreporter.stats.get("skipped", []))
    terminalreporter.write_line(f"skipped {len(skipped)}: {', '.join(skipped) or 'nothing'}")
