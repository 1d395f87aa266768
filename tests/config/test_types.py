"""Types are those that are named: what JAX would narrow in silence is refused."""

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import llm_jax
from llm_jax.base.errors import DataError, UserError
from llm_jax.base.tree import Tree
from llm_jax.checkpoints.reader import read_params, verify_steps
from llm_jax.config.model import ModelConfig
from llm_jax.evaluate import evaluate
from llm_jax.inference.decode import _pad_left
from llm_jax.language_model.model import LanguageModel
from llm_jax.model.decoder import abstract_params, forward, init_params
from llm_jax.tokenization.plain import ByteTokenizer
from llm_jax.train import train
from tests.runs.test_origin import a_model
from tests.support.commands import run_command, words_for

pytestmark = pytest.mark.compiles
_WAY_OUT = (
    "float64, which JAX takes only where the environment has JAX_ENABLE_X64=1; set that, or choose float32"
)


@pytest.mark.parametrize("setting", ["dtype", "param_dtype"])
def test_float64_is_refused_where_jax_would_compute_in_float32(
    setting: str, tiny: ModelConfig, tmp_path: Path, prose: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wide = dataclasses.replace(tiny, **{setting: "float64"})
    for ask in (lambda: init_params(jax.random.key(0), wide), lambda: abstract_params(wide)):
        with pytest.raises(UserError, match=f"model.{setting} is {_WAY_OUT}"):
            ask()
    words = [f"--model.{setting}=float64", "--data.tokenizer=bytes", "--data.compact_vocab=false"]
    run_command(train, words_for(tmp_path, prose, *words), status=2, takes_files=True)
    assert capsys.readouterr().err == f"error: model.{setting} is {_WAY_OUT}\n"
    assert not (tmp_path / "run").exists()
    with jax.enable_x64(True):
        params = init_params(jax.random.key(0), wide)
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype(wide.param_dtype)}


def test_a_forward_pass_in_float64_is_refused(
    tiny: ModelConfig, tiny_params: Tree, tokens_BT: np.ndarray
) -> None:
    with pytest.raises(UserError, match=_WAY_OUT):
        forward(tiny_params, dataclasses.replace(tiny, dtype="float64"), tokens_BT)


def test_a_float64_model_is_refused_and_not_called_damaged(
    tmp_path: Path, tiny: ModelConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    model = dataclasses.replace(tiny, vocab_size=257, dtype="float64", param_dtype="float64")
    with jax.enable_x64(True):
        directory = a_model(tmp_path / "wide", model)
    with pytest.raises(UserError, match=_WAY_OUT):
        llm_jax.load(directory)
    assert [found.fault for found in verify_steps(directory / "checkpoints")] == [""]
    with pytest.raises(UserError, match=_WAY_OUT):  # also for who wants it in float32
        read_params(directory / "checkpoints", abstract_params(dataclasses.replace(tiny, vocab_size=257)))
    run_command(evaluate, [str(directory)], status=2)
    assert _WAY_OUT in capsys.readouterr().err


def test_a_large_id_does_not_become_another(tiny: ModelConfig, tiny_params: Tree) -> None:
    model = LanguageModel(tiny, tiny_params, ByteTokenizer(), {})
    for ids in ([2**32 + 3], np.array([2**32 + 3]), np.array([2**40], np.uint64)):
        with pytest.raises(DataError, match="ids must be from 0 to 36"):
            model.logits(ids)
        with pytest.raises(DataError, match="ids must be from 0 to 36"):
            _pad_left([ids], 8, tiny)
    for ids in ([1.5], np.array([3.0])):
        with pytest.raises(UserError, match="must have whole numbers, got float64"):
            model.logits(ids)
    np.testing.assert_array_equal(model.logits(np.array([1, 2])), model.logits([1, 2]))
    assert _pad_left([[1, 2, 3]], 8, tiny)[0].dtype == np.int32
