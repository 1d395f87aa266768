"""Where a step's time goes: what is read of a program and its trace, shares of a peak, and the command."""

import dataclasses
import json
from pathlib import Path

import jax
import pytest

from llm_jax.cli import command
from llm_jax.config.model import ModelConfig
from llm_jax.model.decoder import abstract_params
from llm_jax.model.parts import PARTS
from llm_jax.profile import profile
from llm_jax.profiling.program import PHASES, Operation, module_name, read_program
from llm_jax.profiling.trace import Event, Mark, host_events, rows, sums
from llm_jax.training.throughput import datasheet_flops, share_of_peak
from tests.conftest import ROOT

PROGRAM = """HloModule jit_train_steps, is_scheduled=true

FileNames
1 "/home/x/llm_jax/training/step.py"
2 "/home/x/llm_jax/model/layers.py"
3 "/lib/flax/linen/linear.py"

FunctionNames
1 "train_steps.<locals>.step"
2 "Projection.__call__"
3 "promote"

FileLocations
1 {file_name_id=1 function_name_id=1 line=90}
2 {file_name_id=2 function_name_id=2 line=212}
3 {file_name_id=3 function_name_id=3 line=7}

StackFrames
1 {file_location_id=1 parent_frame_id=1}
2 {file_location_id=2 parent_frame_id=2}
3 {file_location_id=3 parent_frame_id=3}

%fused_computation (a: f32[4,8], i: s32[]) -> f32[8] {
  %a = f32[4,8]{1,0} parameter(0)
  %i = s32[] parameter(1)
  %j = s32[] subtract(%i, %i)
  %m = f32[4,8]{1,0:T(8,128)} multiply(%a, %a), metadata={op_name="jit(train_steps)/jvp()/Block/norm_1/mul"}
  ROOT %r = f32[8]{0} reduce(%m, %j), to_apply=%add
}

%moving (a: f32[4,8], i: s32[]) -> f32[8] {
  %j.2 = s32[] subtract(%i, %i)
  ROOT %s = f32[8]{0} dynamic-slice(%a, %j.2)
}

ENTRY %main (p: f32[4,8]) -> (f32[8], f32[4,8]) {
  %p = f32[4,8]{1,0} parameter(0), metadata={op_name="state['params']['blocks']['key']['kernel']"}
  %dot.1 = f32[4,8]{1,0} dot(%p, %p), metadata={op_name="jit(f)/transpose(jvp())/Block/mlp_up/dot_general" \
stack_frame_id=3}
  %head.1 = f32[4,8]{1,0} dot(%p, %p), metadata={op_name="jit(f)/jvp(head)/dot_general" stack_frame_id=1}
  %fusion.1 = f32[8]{0} fusion(%p), kind=kLoop, calls=%fused_computation
  %fusion.2 = f32[8]{0} fusion(%p), kind=kLoop, calls=%moving, metadata={op_name="jit(f)/while/body/squeeze"}
  %gemm = f32[8]{0} custom-call(%p), custom_call_target="__cublas$gemm", metadata={op_name="f/optimizer/dot"}
  %while.1 = (f32[8]{0}, f32[4,8]{1,0}) while(%fusion.1), condition=%c, body=%b
  ROOT %copy.1 = f32[4,8]{1,0} copy(%p)
}
"""


def test_an_operation_is_known_by_the_programs_own_metadata() -> None:
    program = read_program(PROGRAM)
    assert module_name(PROGRAM) == "jit_train_steps"
    assert program["dot.1"] == Operation("product", "MLP", "backward", "layers.py:212")
    assert program["head.1"] == Operation("product", "head and loss", "forward", "")
    assert program["fusion.1"] == Operation("reduction", "layer norms", "forward", "")
    assert program["fusion.2"] == Operation("copy", "the rest", "other", "")
    assert program["gemm"] == Operation("product", "optimizer", "update", "")
    assert program["copy.1"] == Operation("copy", "no metadata", "other", "")
    assert program["p"].part == "no metadata"
    assert "while.1" not in program


def test_every_layer_of_a_block_has_a_part_of_its_own() -> None:
    shape = {
        "d_model": 8,
        "num_layers": 1,
        "num_heads": 2,
        "vocab_size": 11,
        "gated_mlp": True,
        "mlp_bias": False,
    }
    rich = ModelConfig(qk_norm="head", norm_place="both", positions="rotary", num_experts=2, **shape)
    words = {word for part, words in PARTS.items() if part != "blocks, the rest" for word in words}
    for model in (rich, dataclasses.replace(rich, num_experts=0)):
        assert set(abstract_params(model)["blocks"]) <= words


def test_rows_hold_all_that_was_traced_by_step_and_the_longest_first() -> None:
    events = [Event("copy.1", 1.0), Event("dot.1", 3.0), Event("copy.1", 0.5), Event("dot.1", 3.5)]
    found = rows(events, read_program(PROGRAM), steps=2)
    assert [(row.name, row.seconds, row.runs) for row in found] == [("dot.1", 3.25, 1), ("copy.1", 0.75, 1)]
    assert sums(found, "part") == {("MLP",): 3.25, ("no metadata",): 0.75}
    assert sums(found, "phase", "kind") == {("backward", "product"): 3.25, ("other", "copy"): 0.75}


def test_a_piece_that_another_thread_takes_up_counts_for_the_operation_that_was_cut_up() -> None:
    pool = "ThreadpoolListener::"
    marks = [
        Mark("a", 0, 100e9, "while.1", "while.1", 1),
        Mark("a", 0, 4e9, "dot.1", "dot.1", 2),
        Mark("a", 1e9, 0, pool + "Record", "", 7),
        Mark("b", 2e9, 0, pool + "StartRegion", "", 7),
        Mark("b", 2.5e9, 0, pool + "Record", "", 8),  # handed on by the piece itself
        Mark("c", 3e9, 0, pool + "StartRegion", "", 8),
        Mark("c", 5e9, 0, pool + "StopRegion", "", 0),
        Mark("b", 6e9, 1e9, "copy.1", "copy.1", 3),
        Mark("a", 5e9, 0, pool + "Record", "", 9),  # by the executor, between operations
        Mark("d", 6e9, 0, pool + "StartRegion", "", 9),
        Mark("d", 9e9, 0, pool + "StopRegion", "", 0),
    ]
    program = read_program(PROGRAM)
    found = [event for event in host_events(marks[::-1], program) if event.name in program]
    pieces = [Event("dot.1", 4, 0), Event("dot.1", 2, 0)]  # of threads b and c
    assert sorted(found) == sorted([Event("dot.1", 4), *pieces, Event("copy.1", 1)])
    assert [(row.seconds, row.runs) for row in rows(found, program, 1)] == [(10, 1), (1, 1)]


def test_a_share_needs_a_peak() -> None:
    assert share_of_peak(3e9, 0.5, 24e9) == 0.25
    assert share_of_peak(3e9, 0.5, None) is None


@pytest.mark.parametrize(
    ("kind", "teraflops"),
    [
        ("TPU v4", 275),
        ("TPU v5 lite", 197),
        ("TPU v5", 459),
        ("TPU v5p", 459),
        ("TPU v6 lite", 918),
        ("NVIDIA A100-SXM4-80GB", 312),
        ("NVIDIA H100 80GB HBM3", 989),
        ("NVIDIA H100 PCIe", 756),
        ("NVIDIA H200", 989),
    ],
)
def test_an_accelerator_has_its_makers_peak(kind: str, teraflops: int) -> None:
    assert datasheet_flops(kind) == teraflops * 1e12


@pytest.mark.parametrize("kind", ["TPU v40", "TPU v5 litepod", "NVIDIA H100 NVL", "cpu", ""])
def test_an_unknown_accelerator_has_none(kind: str) -> None:
    assert datasheet_flops(kind) is None


def run_profile(*words: object) -> int:
    with pytest.raises(SystemExit) as stop:
        command.run(profile, [str(word) for word in words], takes_files=True)
    assert isinstance(stop.value.code, int)
    return stop.value.code


SMALL = ["--model.context_length=12", "--model.d_model=12", "--model.num_heads=3", "--model.num_layers=2"]
SMALL += ["--data.tokenizer=bytes", "--train.batch_size=2", "--train.steps_per_dispatch=2"]


@pytest.mark.parametrize("layers", ["scan", "unroll"])
def test_a_profile_finds_every_part_and_its_sums_are_what_was_traced(
    layers: str, tmp_path: Path, prose: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    places = [f"--data.corpus={prose}", f"--data.prepared={tmp_path}", "--out", tmp_path / "out"]
    words = [*SMALL, *places, "--steps=3", "--top=4", f"--model.layers={layers}", "--train.log_interval=2"]
    assert run_profile(*words, "--figures", tmp_path / "figures.json") == 0
    shown = capsys.readouterr().out
    found = json.loads((tmp_path / "figures.json").read_text())

    assert found["steps"] == 4  # whole calls of 2
    assert sum(one["seconds"] for one in found["operations"]) == pytest.approx(found["busy_seconds"])
    assert sum(one["seconds"] for one in found["parts"]) == pytest.approx(found["busy_seconds"])
    assert {one["phase"] for one in found["parts"]} == set(PHASES)
    both = {"embedding", "layer norms", "attention projections", "attention", "MLP", "head and loss"}
    for phase in ("forward", "backward"):
        assert {one["part"] for one in found["parts"] if one["phase"] == phase} >= both
    assert {one["part"] for one in found["parts"]} >= {"optimizer", "norms that are logged", "dropout"}
    unknown = [one for one in found["operations"] if one["part"] in ("the rest", "no metadata")]
    assert len(unknown) < len(found["operations"]) / 2
    products = [one for one in found["operations"] if one["kind"] == "product" and one["part"] == "MLP"]
    assert products
    assert {one["source"].split(":")[0] for one in products} == {"layers.py"}
    layers_a_run = {one["runs"] for one in products if one["phase"] == "forward"}
    assert layers_a_run == ({2.0} if layers == "scan" else {1.0})

    assert found["share_of_peak"] == pytest.approx(
        found["flops"] / found["seconds"] / found["ceiling"]["flops"]
    )
    assert found["tokens_per_second"] == pytest.approx(24 / found["seconds"])
    assert {Path(file).name.split(".", 1)[1] for file in found["files"]} == {"xplane.pb", "trace.json.gz"}
    assert all(Path(file).is_file() for file in found["files"])
    assert "https://ui.perfetto.dev" in shown
    last = json.loads(shown.splitlines()[-1])
    assert last == {name: value for name, value in found.items() if name not in ("parts", "operations")}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_cpus_peak_is_that_of_the_models_own_products(dtype: str) -> None:
    from llm_jax.profiling import measure

    ceiling = measure._ceiling(jax.devices()[0], dtype)
    assert ceiling.flops
    assert ceiling.origin == f"a {dtype} product measured here"


def test_an_accelerator_without_a_peak_has_no_share(
    tmp_path: Path, prose: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from llm_jax.profiling import measure

    ceiling = measure.Ceiling(None, "Wafer 9 is not in the table of datasheets", 1e9)
    monkeypatch.setattr(measure, "_ceiling", lambda *_: ceiling)
    places = [f"--data.corpus={prose}", f"--data.prepared={tmp_path}", "--out", tmp_path / "out"]
    assert run_profile(*SMALL, *places, "--steps=2") == 0
    shown = capsys.readouterr().out
    assert "no share of a peak, as Wafer 9 is not in the table of datasheets" in " ".join(shown.split())
    assert json.loads(shown.splitlines()[-1])["share_of_peak"] is None


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--steps=0"], "steps (0) must be at least 1"),
        (["--top=-1"], "top (-1) at least 0"),
        (["--step=3"], "--step"),
        (["--model.d_model=7"], "d_model (7)"),
        (["nothing.toml"], "nothing.toml does not exist"),
        (
            ["--figures=/nowhere/figures.json"],
            "--figures /nowhere/figures.json must be a file in a folder that exists",
        ),
        ([f"--out={ROOT / 'README.md'}"], "must be a folder that can be written"),
    ],
)
def test_a_bad_option_is_one_line(
    words: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run_profile(*words) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
    assert list(tmp_path.iterdir()) == []
