"""Our program beside torch, live: the tutorial in float32 and float64 over many shapes, and the whole-size
model.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import llm_jax
from llm_jax.cli import command
from llm_jax.config.decoding import SamplingConfig
from llm_jax.convert import convert
from llm_jax.interop.pytorch.tutorial import export_state_dict, infer_config
from llm_jax.model.decoder import init_params
from llm_jax.proofs.kinks import Wanted, follow
from llm_jax.proofs.tutorial import tutorial_program
from llm_jax.tokenization.byte_pair import named_tokenizer
from tests.conftest import ROOT
from tests.parity.torch_tutorial import TorchTutorial

SHAPE = st.tuples(
    st.integers(2, 97),  # vocabulary
    st.integers(1, 4),  # heads
    st.sampled_from([2, 4, 6, 16]),  # head_dim
    st.integers(1, 3),  # layers
    st.integers(1, 24),  # context
    st.integers(1, 3),  # batch
)
BOUNDS = {"float32": 1e-5, "float64": 1e-10}


@contextmanager
def precision(dtype: str) -> Iterator[None]:
    torch.set_default_dtype(getattr(torch, dtype))
    try:
        with jax.enable_x64(dtype == "float64"):
            yield
    finally:
        torch.set_default_dtype(torch.float32)


def near(got: Any, wanted: Any, bound: float, name: str) -> None:
    got, wanted = np.asarray(got), np.asarray(wanted)
    assert got.shape == wanted.shape
    assert np.abs(got - wanted).max() <= bound * max(1e-3, np.abs(wanted).max()), name


def compare(shape: tuple[int, ...], dtype: str, seed: int, steps: int) -> None:
    vocab_size, heads, head_dim, layers, context, batch_size = shape
    torch.manual_seed(seed)
    model = TorchTutorial(vocab_size, heads * head_dim, layers, heads, context, dropout=0.0)
    weights = {name: value.numpy().copy() for name, value in model.state_dict().items()}
    program = tutorial_program(weights, context, dtype)
    batches = np.random.default_rng(seed).integers(0, vocab_size, (steps, batch_size, context + 1))
    tokens = torch.tensor(batches)
    near(
        program.logits(weights, batches[0][:, :-1]),
        model(tokens[0][:, :-1]).detach(),
        BOUNDS[dtype],
        "logits",
    )
    loss, gradients = program.loss_and_gradients(weights, batches[0])
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    losses = []
    for step in range(steps):
        torch_loss = model.loss(tokens[step][:, :-1], tokens[step][:, 1:])
        optimizer.zero_grad()
        torch_loss.backward()
        if step == 0:
            near(loss, torch_loss.item(), BOUNDS[dtype], "loss")
            for name, parameter in model.named_parameters():
                assert parameter.grad is not None
                near(gradients[name], parameter.grad, BOUNDS[dtype], name)
        optimizer.step()
        losses.append(torch_loss.item())
    wanted = Wanted(weights, batches, 1e-3, np.array(losses), BOUNDS[dtype] * max(losses))
    near(follow(program, wanted, print).losses, losses, BOUNDS[dtype], "losses")


@settings(max_examples=12, deadline=None, derandomize=True)
@given(shape=SHAPE, seed=st.integers(0, 99))
def test_tutorial_equals_torch_in_float64_over_shapes(shape: tuple[int, ...], seed: int) -> None:
    with precision("float64"):
        compare(shape, "float64", seed, steps=3)


@settings(max_examples=5, deadline=None, derandomize=True)
# Normalising two features leaves only their order: its gradient cancels to rounding noise in float32.
@given(shape=SHAPE.filter(lambda shape: shape[1] * shape[2] >= 8), seed=st.integers(0, 99))
def test_tutorial_equals_torch_in_float32_over_shapes(shape: tuple[int, ...], seed: int) -> None:
    compare(shape, "float32", seed, steps=1)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_tutorial_equals_torch_over_30_adamw_steps(dtype: str) -> None:
    with precision(dtype):
        compare((89, 4, 16, 8, 16, 4), dtype, seed=3, steps=30)


def test_initial_weights_are_distributed_as_torchs() -> None:
    torch.manual_seed(0)
    weights = {name: value.numpy() for name, value in TorchTutorial(997).state_dict().items()}
    config = infer_config(weights)
    ours = export_state_dict(init_params(jax.random.key(0), config), config)
    for name, tensor in weights.items():
        if tensor.size > 1000 and not name.endswith("tril"):
            assert ours[name].std() == pytest.approx(tensor.std(), rel=0.05), name
            assert np.abs(ours[name]).max() == pytest.approx(np.abs(tensor).max(), rel=0.25), name


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[TorchTutorial, Path]:
    """The tutorial's model in full size, made by torch and saved as it saves it."""
    folder = tmp_path_factory.mktemp("whole")
    torch.manual_seed(1337)
    model = TorchTutorial(100070).eval()
    # Some steps on one passage, so that greedy choices are those of a text.
    text = (ROOT / "data" / "sales_handbook.txt").read_text()[:4000]
    passage = torch.tensor(named_tokenizer("cl100k_base").encode(text)[: 12 * 17]).long().reshape(12, 17)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(25):
        loss = model.loss(passage[:, :-1], passage[:, 1:])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    torch.save(model.state_dict(), folder / "model.pt")
    return model, folder


def test_the_whole_size_state_dict_gives_torchs_logits_and_text(whole: tuple[TorchTutorial, Path]) -> None:
    model, folder = whole
    assert sum(parameter.numel() for parameter in model.parameters()) == 13_307_558
    with pytest.raises(SystemExit) as stop:
        command.run(convert, ["import", str(folder / "model.pt"), str(folder / "imported")])
    assert stop.value.code == 0
    ours = llm_jax.load(folder / "imported")
    tokens = np.random.default_rng(0).integers(0, 100070, (4, 16))
    np.testing.assert_allclose(ours.logits(tokens), model(torch.tensor(tokens)).detach(), atol=1e-5)
    prompt = ours.encode_prompt("The salesperson")
    continued = model.generate(torch.tensor([prompt]), 100, greedy=True)[0, len(prompt) :].tolist()
    assert len(set(continued)) > 3
    text = ours.generate("The salesperson", max_new_tokens=100, sampling=SamplingConfig(temperature=0))
    assert text == b"".join(map(ours.tokenizer.token_bytes, continued)).decode(errors="replace")


def test_torch_loads_what_we_export(whole: tuple[TorchTutorial, Path]) -> None:
    from safetensors.torch import load_file

    model, folder = whole
    for arguments in (
        ["import", str(folder / "model.pt"), str(folder / "again")],
        ["export", str(folder / "again"), str(folder / "out.safetensors")],
    ):
        with pytest.raises(SystemExit) as stop:
            command.run(convert, arguments)
        assert stop.value.code == 0
    back = load_file(folder / "out.safetensors")
    fresh = TorchTutorial(100070)
    fresh.load_state_dict(back, strict=True)
    assert all(torch.equal(value, back[name]) for name, value in model.state_dict().items())


def test_a_mutated_program_is_caught() -> None:
    """The bounds have teeth: small faults that training would forgive do not pass."""
    import llm_jax.model.decoder as decoder

    original = decoder.sinusoidal_table
    with precision("float64"), pytest.MonkeyPatch.context() as patch:
        patch.setattr(decoder, "sinusoidal_table", lambda t, d: original(t, d) * (1 + 1e-9))
        jax.clear_caches()
        with pytest.raises(AssertionError):
            compare((31, 2, 6, 2, 9, 2), "float64", 0, steps=1)
    jax.clear_caches()
