"""The verdict on a golden file: rounding at a ReLU's kink is no fault, and a fault is not taken for one."""

import json
from pathlib import Path

import numpy as np
import pytest

from llm_jax.base.errors import PROOF_FAILED
from llm_jax.cli import command
from llm_jax.interop.pytorch.tutorial import name_of_relu_bias
from llm_jax.proofs.golden_file import Arrays
from llm_jax.proofs.kinks import FIRM, Program, near
from llm_jax.proofs.tutorial import holds, judge
from llm_jax.verify import verify
from tests.support.golden import FAULTS, RATE, Planted, golden_file, plant, start, write


@pytest.fixture(scope="module")
def program() -> Program:
    return start()[0]


@pytest.fixture(scope="module")
def planted(program: Program) -> Planted:
    _, weights, batches = start()
    return plant(program, weights, batches, step=3, layer=1)


@pytest.fixture(scope="module")
def sides(program: Program, planted: Planted) -> dict[bool, Arrays]:
    """Golden files whose only difference is the side of the kink."""
    weights, batches, kinks = planted
    return {on: golden_file(program, weights, batches, [kinks[on]]) for on in (False, True)}


def silent(line: str) -> None:
    del line


def test_a_golden_file_holds_on_either_side_of_a_kink_and_the_unit_is_named(
    planted: Planted, sides: dict[bool, Arrays]
) -> None:
    apart = np.abs(sides[True]["losses"] - sides[False]["losses"])
    assert apart[:4].max() < 1e-6 < 1e-4 < apart.max()
    named = []
    for on, golden in sides.items():
        judged = judge(golden, silent)
        assert holds(judged)
        for _, run in judged.values():
            assert np.abs(run.losses - golden["losses"]).max() < 1e-6
            named += run.kinks
            assert all((kink[:5], kink.on) == (planted.kinks[on][:5], on) for kink in run.kinks)
            assert bool(run.kinks) == (run.as_run > 1e-5)
            assert all(kink.ulps < FIRM and kink.jump > 1e-3 for kink in run.kinks)
            assert not run.kinks or (run.leaves_at or 0) > 3
    # In each precision ours is on one of the two sides as run.
    assert len(named) == 2


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_seen_with_a_kink_and_without(program: Program, planted: Planted, fault: str) -> None:
    weights, batches, kinks = planted
    for start_weights, chosen in ((start()[1], []), (weights, [kinks[False]]), (weights, [kinks[True]])):
        judged = judge(golden_file(program, start_weights, batches, chosen, **FAULTS[fault]), silent)
        assert not holds(judged)
        assert [row.quantity[3:] for row in judged["float32"].rows if not row.holds] == ["AdamW losses"]


def test_a_fault_too_small_for_float32_cannot_hide_behind_a_kink(program: Program, planted: Planted) -> None:
    """It moves the run to the other branch, on which it is within float32's bound."""
    weights, batches, kinks = planted
    judged = judge(golden_file(program, weights, batches, [kinks[True]], rate=1.00003 * RATE), silent)
    assert judged["float32"].run.kinks
    assert all(row.holds for row in judged["float32"].rows)
    assert not holds(judged)


def test_what_is_without_a_fault_and_without_a_kink_holds_as_run(program: Program) -> None:
    _, weights, batches = start()
    judged = judge(golden_file(program, weights, batches), silent)
    assert holds(judged)
    assert not any(run.kinks or run.tried for _, run in judged.values())


def test_a_unit_whose_side_moves_no_gradient_is_no_kink(program: Program, planted: Planted) -> None:
    """Near zero at the first step, with and without a way from the unit to the loss."""
    weights, tokens = dict(planted.weights), planted.batches[0]
    inputs, _ = program.relu_inputs(weights, tokens[:, :-1])
    row, token, unit = map(int, np.unravel_index(np.argmin(np.abs(inputs[1])), inputs[1].shape))
    bias, down = name_of_relu_bias(1), "transformer_blocks.1.feed_forward_layer.ffn.2.weight"
    weights[bias] = weights[bias].copy()
    weights[bias][unit] -= inputs[1, row, token, unit]
    assert {kink[:5] for kink in near(program, weights, tokens, 0)} == {(0, 1, unit, row, token)}
    weights[down] = weights[down].copy()
    weights[down][:, unit] = 0
    assert not list(near(program, weights, tokens, 0))


def ran(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    with pytest.raises(SystemExit) as stop:
        command.run(verify, arguments)
    return int(stop.value.code or 0), capsys.readouterr().out


def test_the_command_says_which_unit_rounding_decided(
    sides: dict[bool, Arrays], planted: Planted, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = {}
    for on, golden in sides.items():
        write(tmp_path / "golden.npz", golden)
        status, said[on] = ran(["parity", str(tmp_path / "golden.npz")], capsys)
        assert status == 0
    reports = {on: json.loads(text.splitlines()[-1]) for on, text in said.items()}
    kinks = {on: reports[on][f"{dtype}_run"]["kinks"] for on in said for dtype in ("float64", "float32")}
    other = next(on for on in kinks if kinks[on])
    kink = planted.kinks[other]
    assert f"rounding decides at step 3 whether unit {kink.unit} of layer 1 is on" in said[other]
    assert f"on the branch where it is {'on' if other else 'off'}" in said[other]
    assert [kinks[other][0][name] for name in kink._fields[:5]] == list(kink[:5])
    assert all(report["holds"] for report in reports.values())


def test_the_command_says_that_no_kink_explains_a_fault(
    program: Program, planted: Planted, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights, batches, kinks = planted
    golden = golden_file(program, weights, batches, [kinks[True]], last=2e-5)
    write(tmp_path / "golden.npz", golden)
    status, said = ran(["parity", str(tmp_path / "golden.npz")], capsys)
    assert status == PROOF_FAILED
    assert "sides that rounding could have changed explains it" in said
    assert json.loads(said.splitlines()[-1])["holds"] is False
