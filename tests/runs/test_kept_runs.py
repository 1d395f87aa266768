"""Directories that earlier versions wrote: they open, go on, and write the same text."""

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest

import llm_jax
from llm_jax.config.decoding import SamplingConfig
from llm_jax.train import train
from tests.support.commands import metrics_of, run_command
from tests.support.shared_data import ALONG

pytestmark = pytest.mark.compiles

NAMES = ("adamw", "muon", "imported")  # two runs of four steps, and the second one exported and imported


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The unpacked directories, with their text, its token stores, and what the version then made of them."""
    folder = tmp_path_factory.mktemp("kept")
    with zipfile.ZipFile(ALONG / "kept_runs.zip") as archive:
        archive.extractall(folder)
    return folder


@pytest.mark.parametrize("name", NAMES)
def test_a_kept_model_writes_what_it_wrote_then(kept: Path, name: str) -> None:
    then = json.loads((kept / "then.json").read_text())[name]
    model = llm_jax.load(kept / name)
    made = model.generate("The customer", max_new_tokens=12, sampling=SamplingConfig(temperature=0))
    assert made == then["text"]
    score = model.score(" asked for apples.", prompt="The customer")
    np.testing.assert_allclose(score.log_probs.sum(), then["log_prob"], rtol=1e-5)


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_a_kept_run_goes_on_as_it_would_have_then(
    kept: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(kept)
    then = json.loads((kept / "then.json").read_text())[name]
    run_command(train, [*then["words"], "--train.steps=6", "--continue-with-changes"], takes_files=True)
    losses = {line["step"]: line["train_loss"] for line in metrics_of(kept / name) if "train_loss" in line}
    assert [losses[step] for step in range(1, 5)] == then["losses"][:4]
    np.testing.assert_allclose([losses[5], losses[6]], then["losses"][4:], rtol=1e-6)
