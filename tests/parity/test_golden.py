"""The recorded numbers of the torch tutorial, through our own torch model and through the command."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from llm_jax.base.errors import PROOF_FAILED
from llm_jax.cli import command
from llm_jax.verify import verify
from tests.parity.torch_tutorial import TorchTutorial
from tests.support.shared_data import SharedData


@pytest.fixture(scope="module")
def golden(shared_data: SharedData) -> dict[str, np.ndarray]:
    with np.load(shared_data / "torch_tutorial_golden.npz") as file:
        return dict(file)


def test_our_torch_model_is_the_tutorials(golden: dict[str, np.ndarray]) -> None:
    model = TorchTutorial(*map(int, golden["hyper"][:5]), dropout=0.0)
    weights = {name[5:]: torch.tensor(value) for name, value in golden.items() if name.startswith("init/")}
    absent = model.load_state_dict(weights, strict=False)
    assert not absent.unexpected_keys
    assert all(name.endswith("tril") for name in absent.missing_keys)
    batches = torch.tensor(golden["tokens"], dtype=torch.int64)
    np.testing.assert_allclose(model(batches[0][:, :-1]).detach(), golden["logits0"], atol=2e-6)
    optimizer = torch.optim.AdamW(model.parameters(), lr=float(golden["lr"]))
    losses = []
    for step, batch in enumerate(batches):
        loss = model.loss(batch[:, :-1], batch[:, 1:])
        optimizer.zero_grad()
        loss.backward()
        if step == 0:
            for name, parameter in model.named_parameters():
                wanted = golden[f"grad0/{name}"]
                np.testing.assert_allclose(
                    parameter.grad, wanted, atol=2e-6 * np.abs(wanted).max(), err_msg=name
                )
        optimizer.step()
        losses.append(loss.item())
    np.testing.assert_allclose(losses, golden["losses"], atol=2e-6)
    greedy = model.generate(torch.tensor(golden["greedy_prompt"].reshape(1, -1)).long(), 30, greedy=True)
    assert greedy[0, : golden["greedy"].size].tolist() == golden["greedy"].ravel().tolist()


def test_verify_parity_holds_and_says_so(shared_data: SharedData, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        command.run(verify, ["parity", str(shared_data / "torch_tutorial_golden.npz")])
    report = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert stop.value.code == 0
    assert report["holds"]
    assert len(report["float32"]) == len(report["float64"]) == 6
    assert {row["bound"] for row in report["float32"]} > {"absolute <= 3e-06", "relative <= 1e-05"}


@pytest.mark.parametrize(
    "name", ["logits0", "loss0", "losses", "grad0/language_model_out_linear_layer.bias", "greedy"]
)
def test_verify_parity_notices_a_change_of_any_number(
    golden: dict[str, np.ndarray], tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    changed = golden[name].copy()
    changed.flat[-1] += 1 if name == "greedy" else 1e-3
    np.savez(tmp_path / "changed.npz", **(golden | {name: changed}))
    with pytest.raises(SystemExit) as stop:
        command.run(verify, ["parity", str(tmp_path / "changed.npz")])
    assert stop.value.code == PROOF_FAILED
    assert not json.loads(capsys.readouterr().out.splitlines()[-1])["holds"]


def test_verify_parity_refuses_what_is_no_golden_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "junk.npz").write_bytes(b"junk")
    np.savez(tmp_path / "other.npz", hyper=np.zeros(3))
    for name, said in (
        ("junk.npz", "must be a .npz"),
        ("other.npz", "lacks"),
        ("absent.npz", "must be a .npz"),
    ):
        with pytest.raises(SystemExit) as stop:
            command.run(verify, ["parity", str(tmp_path / name)])
        assert stop.value.code == 3
        assert said in capsys.readouterr().err
