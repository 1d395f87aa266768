"""State dicts of the torch tutorial as people save them: without masks, with some, or by the names of what
wrapped the model.
"""

from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
import pytest
from safetensors.numpy import save_file

import llm_jax
from llm_jax.base.tree import Tree
from llm_jax.config.model import ModelConfig
from llm_jax.interop.pytorch.tutorial import export_state_dict
from tests.interop.test_convert import run_convert

StateDict = dict[str, np.ndarray]
FIRST = "transformer_blocks.0.multi_head_attention_layer.heads.0.tril"


@pytest.fixture
def state_dict(tiny: ModelConfig, tiny_params: Tree) -> StateDict:
    return export_state_dict(tiny_params, tiny)


def masks(state_dict: StateDict, change: Callable[[np.ndarray], np.ndarray]) -> StateDict:
    return {name: change(each) if name.endswith("tril") else each for name, each in state_dict.items()}


def parameters(state_dict: StateDict) -> StateDict:
    return {name: tensor for name, tensor in state_dict.items() if not name.endswith("tril")}


def wrapped(prefix: str) -> Callable[[StateDict], StateDict]:
    return lambda state_dict: {prefix + name: tensor for name, tensor in state_dict.items()}


def compiled_blocks(state_dict: StateDict) -> StateDict:
    names = {
        name: name.replace("transformer_blocks.1.", "transformer_blocks.1._orig_mod.") for name in state_dict
    }
    return {names[name]: tensor for name, tensor in state_dict.items()}


@pytest.mark.parametrize(
    ("change", "context"),
    [
        (parameters, 16),
        (lambda found: parameters(found) | {FIRST: found[FIRST]}, 12),
        (lambda found: masks(found, lambda mask: mask.astype(np.bool_)), 12),
        (lambda found: masks(found, lambda mask: mask.astype(np.uint8)), 12),
        (wrapped("module."), 12),
        (wrapped("_orig_mod."), 12),
        (wrapped("module._orig_mod."), 12),
        (wrapped("_orig_mod.module."), 12),
        (compiled_blocks, 12),
        (lambda found: wrapped("module.")(parameters(found)), 16),
    ],
    ids=[
        *("none", "one", "bool", "uint8", "DataParallel", "compiled", "both", "both, the other way"),
        *("compiled blocks", "DataParallel, none"),
    ],
)
def test_a_state_dict_comes_in_whatever_it_was_saved_with(
    state_dict: StateDict,
    tiny_params: Tree,
    tmp_path: Path,
    change: Callable[[StateDict], StateDict],
    context: int,
) -> None:
    save_file(change(state_dict), tmp_path / "theirs.safetensors")
    run_convert(
        ["import", str(tmp_path / "theirs.safetensors"), str(tmp_path / "ours"), "--tokenizer", "bytes"]
    )
    ours = llm_jax.load(tmp_path / "ours")
    assert jax.tree.all(jax.tree.map(np.array_equal, ours.params, tiny_params))
    assert ours.config.context_length == context


def test_the_context_of_parameters_alone_can_be_given(
    state_dict: StateDict, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_file(parameters(state_dict), tmp_path / "theirs.safetensors")
    words = ["import", str(tmp_path / "theirs.safetensors"), "--tokenizer", "bytes"]
    run_convert([*words, str(tmp_path / "usual")])
    assert "without masks, texts of 16 tokens as in the tutorial" in capsys.readouterr().out
    run_convert([*words, str(tmp_path / "ours"), "--context_length", "40"])
    assert "masks" not in capsys.readouterr().out
    assert llm_jax.load(tmp_path / "ours").config.context_length == 40


def above(mask: np.ndarray) -> np.ndarray:
    return np.ones_like(mask)


@pytest.mark.parametrize(
    ("change", "words", "status", "message"),
    [
        (lambda found: masks(found, above), [], 4, "must be 1 on and below the diagonal, and 0 above"),
        (lambda found: found | {FIRST: found[FIRST] * 2}, [], 4, f"{FIRST} must be 1 on and below"),
        (lambda found: found | {FIRST: found[FIRST][:5, :5]}, [], 4, "has shape (12, 12), must have (5, 5)"),
        (
            lambda found: found | wrapped("module.")(found),
            [],
            4,
            "must have each tensor once, but has ",
        ),
        (dict, ["--context_length", "40"], 4, "has shape (12, 12), must have (40, 40)"),
        (dict, ["--context_length", "0"], 2, "context_length (0) must be at least 1"),
    ],
    ids=["all seen", "twos", "two sizes", "twice", "another context", "no context"],
)
def test_wrong_masks_are_refused(
    state_dict: StateDict,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    change: Callable[[StateDict], StateDict],
    words: list[str],
    status: int,
    message: str,
) -> None:
    save_file(change(state_dict), tmp_path / "theirs.safetensors")
    given = ["import", str(tmp_path / "theirs.safetensors"), str(tmp_path / "ours"), "--tokenizer", "bytes"]
    run_convert([*given, *words], status)
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
    assert not (tmp_path / "ours").exists()


def test_a_directory_brings_its_own_context(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_convert(["import", str(tmp_path), str(tmp_path / "ours"), "--context_length", "8"], 2)
    assert "must bring its own context; leave --context_length 8 out" in capsys.readouterr().err
