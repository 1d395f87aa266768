"""A researcher's loss, optimizer and batches through `llm_jax.train`: resumed to the bit, saved, exported."""

import signal
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import llm_jax
from llm_jax.base.errors import InterruptedAndSaved, UserError
from llm_jax.checkpoints.reader import read_about, read_state
from llm_jax.convert import convert
from llm_jax.replay import replay
from llm_jax.train import train
from llm_jax.walkthrough.gather import find_subject
from tests.support.commands import run_command

pytestmark = pytest.mark.compiles


def z_loss(params: Any, config: Any, batch: llm_jax.Batch, dropout_key: Any) -> Any:
    logits, _, _ = llm_jax.forward(params, config, batch.tokens, dropout_key=dropout_key)
    nats = optax.softmax_cross_entropy_with_integer_labels(logits, batch.targets)
    nats += 1e-2 * jnp.square(jax.nn.logsumexp(logits, axis=-1))
    return jnp.sum(nats * batch.weights), jnp.sum(batch.weights)


def counting(index: int) -> llm_jax.Batch:
    rows = (index + np.arange(4)[:, None] + np.arange(9)) % 7 + 97
    return llm_jax.Batch(rows[:, :-1], rows[:, 1:], np.ones((4, 8)))


def a_config(folder: Path, prose: Path) -> llm_jax.Config:
    return llm_jax.Config(
        model=llm_jax.ModelConfig(d_model=16, num_layers=1, num_heads=2, context_length=8),
        data=llm_jax.DataConfig(
            corpus=str(prose), prepared=folder / "prepared", tokenizer="bytes", compact_vocab=False
        ),
        train=llm_jax.TrainConfig(
            run=folder / "run",
            steps=12,
            steps_per_dispatch=2,
            eval_interval=6,
            sample_tokens=4,
            log_interval=2,
        ),
    )


def learn(folder: Path, prose: Path, batches: Any = counting, **more: Any) -> llm_jax.Run:
    own = {"loss": z_loss, "optimizer": optax.lion(1e-3)} | more
    return llm_jax.train(a_config(folder, prose), batches=batches, **own)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, prose: Path) -> llm_jax.Run:
    return learn(tmp_path_factory.mktemp("own"), prose)


def test_own_parts_train_and_go_on_to_the_bit(tmp_path: Path, prose: Path, run: llm_jax.Run) -> None:
    asked: list[int] = []

    def stopping(index: int) -> llm_jax.Batch:
        asked.append(index)
        if index == 3 and asked.count(3) == 1:
            signal.raise_signal(signal.SIGINT)
        return counting(index)

    with pytest.raises(InterruptedAndSaved, match=r"Stopped\. Step \d is saved"):
        learn(tmp_path, prose, batches=stopping)
    halved = learn(tmp_path, prose, batches=stopping)
    states = [read_state(Path(each.directory) / "checkpoints") for each in (run, halved)]
    for a, b in zip(*map(jax.tree.leaves, states), strict=True):
        np.testing.assert_array_equal(a, b)
    losses = [[line["train_loss"] for line in each.metrics if "train_loss" in line] for each in (run, halved)]
    assert losses[0] == losses[1]
    assert losses[0][-1] < losses[0][0]
    assert "learning_rate" in run.metrics[0]
    assert run.metrics[0]["learning_rate"] is None


def test_a_run_is_a_value(run: llm_jax.Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert repr(run).startswith(f"Run({run.directory}, step 12 of 12, validation loss ")
    assert run.config.train.steps == 12
    assert repr(run.model).startswith(
        "LanguageModel(step 12, 1 layer, d_model 16, context 8, 256 token ids, "
    )
    assert repr(llm_jax.Run("nowhere")) == "Run(nowhere, no checkpoint)"
    for value in (run, run.model, run.metrics):
        page = value._repr_html_()
        assert page.startswith("<table>")
        assert len(page) < 9000


def test_it_is_saved_loaded_and_exported(tmp_path: Path, run: llm_jax.Run) -> None:
    run.model.save(tmp_path / "kept")
    again = llm_jax.load(tmp_path / "kept")
    assert again.generate("abc", seed=1, top_k=5) == run.model.generate("abc", seed=1, top_k=5)
    run_command(convert, ["export", str(tmp_path / "kept"), str(tmp_path / "ours.safetensors")])
    assert (tmp_path / "ours.safetensors").exists()
    with pytest.raises(UserError, match="must not exist yet"):
        again.save(tmp_path / "kept")


def test_a_command_does_not_go_on_without_the_parts(
    run: llm_jax.Run, capsys: pytest.CaptureFixture[str]
) -> None:
    about = read_about(Path(run.directory) / "checkpoints")
    assert about["own_parts"] == ["loss", "optimizer", "batches"]
    data = run.config.data
    words = [
        *("--data.tokenizer=bytes", "--data.no-compact_vocab", "--model.d_model=16", "--model.num_layers=1"),
        *(
            "--model.num_heads=2",
            "--model.context_length=8",
            "--train.steps=12",
            "--train.steps_per_dispatch=2",
        ),
        *("--train.eval_interval=6", f"--data.corpus={data.corpus}"),
        *(f"--data.prepared={data.prepared}", f"--train.run={run.directory}"),
    ]
    run_command(train, words, 2, takes_files=True)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(
        "error: the run has its own loss, optimizer, batches and was asked to go on with no parts"
    )
    run_command(replay, [str(run.directory), "--step", "3"], 2)
    assert "its steps cannot be replayed" in capsys.readouterr().err


def test_explain_opens_the_weights_of_a_run_with_its_own_optimizer(run: llm_jax.Run) -> None:
    subject = find_subject(Path(run.directory), print)
    assert subject.step == 12
    for a, b in zip(*map(jax.tree.leaves, (subject.state["params"], run.model.params)), strict=True):
        np.testing.assert_array_equal(a, b)
