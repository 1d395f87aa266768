"""How much of the validation text stands in the training text, and that it is said."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from llm_jax.config.run import DataConfig
from llm_jax.data import overlap
from llm_jax.data.overlap import repeated_sequences, shared_sequences, verbatim_share
from llm_jax.data.store import prepare_store

RANDOM = np.random.default_rng(0).bytes(20_000)


@pytest.mark.parametrize("chunk", [100, 1 << 18])
@pytest.mark.parametrize(
    ("training", "held_out", "share"),
    [
        (RANDOM, RANDOM[7001:13401], 1),
        (RANDOM[:10_000], RANDOM[10_000:], 0),
        (RANDOM[:10_000], RANDOM[3:6403] + RANDOM[13_600:], 0.5),
        (RANDOM[:63], RANDOM, 0),
        (RANDOM, RANDOM[-5:], 1),
        (b"", RANDOM, 0),
        (b" " * 999, b" " * 500 + b"x" * 500, 0.5),
    ],
)
def test_the_share_of_a_text_that_stands_in_another(
    training: bytes, held_out: bytes, share: float, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(overlap, "_CHUNK", chunk)
    assert verbatim_share(training, held_out) == pytest.approx(share, abs=0.07 if share == 0.5 else 0)


def test_sequences_are_counted_as_sets_of_them_are(monkeypatch: pytest.MonkeyPatch) -> None:
    ids = np.random.default_rng(1).integers(0, 30, 20_000).astype(np.uint16)
    training, held_out = ids[:16_000], ids[16_000:]
    sequences = [[tuple(part[at : at + 3]) for at in range(len(part) - 2)] for part in (training, held_out)]
    known = set(sequences[0])
    shared = np.mean([sequence in known for sequence in sequences[1]])
    repeated = 1 - len(known) / len(sequences[0])
    assert 0.3 < shared < 0.6
    monkeypatch.setattr(overlap, "_CHUNK", 1000)
    assert shared_sequences(training, held_out, 3) == pytest.approx(shared, abs=1e-12)
    assert repeated_sequences(training, 3) == pytest.approx(repeated, abs=1e-12)
    monkeypatch.setattr(overlap, "_MOST_SEQUENCES", 4000)  # a share of the sequences, by their hashes
    assert shared_sequences(training, held_out, 3) == pytest.approx(shared, abs=0.05)
    assert repeated_sequences(training, 3) == pytest.approx(repeated, abs=0.05)
    assert len(overlap._hashes(training, 3, overlap._largest_hash(16_000))) < 5000
    assert (shared_sequences(ids[:2], ids, 3), repeated_sequences(ids[:2], 3)) == (0, 0)


@pytest.mark.parametrize("tokenizer", ["cl100k_base", "bytes"])
def test_validation_text_that_training_has_is_said_each_time(
    tmp_path: Path, prose: Path, tokenizer: Any
) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    config = DataConfig(corpus=str(folder), prepared=tmp_path / "p", tokenizer=tokenizer)
    for name in "abc":
        (folder / f"{name}.txt").write_text(prose.read_text()[:5000])
    for _ in range(2):
        remarks: list[str] = []
        assert prepare_store(config, remarks.append).manifest["validation_in_training"] == 1
        assert remarks[-1].startswith("warning: 100% of the validation text also stands in the training text")
    for name in "bc":
        (folder / f"{name}.txt").unlink()
    remarks = []
    assert prepare_store(config, remarks.append).manifest["validation_in_training"] == 0
    assert not [remark for remark in remarks if "warning" in remark]
